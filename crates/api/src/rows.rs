//! Rows of tables, and transactions over several.

use crate::docs::slices;
use crate::error::Failure;
use crate::json::Json;
use crate::routes::{Answer, Shared, blocking, body, ok, shaped};
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

/// Rows of one answer unless asked for fewer.
const ROWS: usize = 1_000;
/// Operations of one transaction.
const OPERATIONS: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default)]
    prefix: String,
    after: Option<String>,
    limit: Option<usize>,
}

pub(crate) async fn list(
    State(shared): State<Shared>,
    Path((db, table)): Path<(String, String)>,
    Query(page): Query<Page>,
) -> Answer {
    let database = shared.database(&db)?;
    let limit = page.limit.unwrap_or(ROWS).clamp(1, ROWS);
    let rows = blocking(move || {
        let table = database.table::<Json>(&table);
        Ok(table.rows(&page.prefix, page.after.as_deref(), limit)?)
    })
    .await?;
    let next = rows.last().filter(|_| rows.len() == limit).map(|(key, _)| key.clone());
    let rows: Vec<Value> =
        rows.into_iter().map(|(key, row)| json!({ "key": key, "row": row.0 })).collect();
    ok(&json!({ "rows": rows, "next": next }))
}

type Place = Path<(String, String, String)>;

pub(crate) async fn one(State(shared): State<Shared>, Path((db, table, key)): Place) -> Answer {
    let database = shared.database(&db)?;
    let row = blocking(move || {
        let row = database.table::<Json>(&table).get(&key)?;
        row.ok_or_else(|| Failure::absent(format!("there is no row '{key}' in table '{table}'")))
    })
    .await?;
    ok(&row.0)
}

pub(crate) async fn put(
    State(shared): State<Shared>,
    Path((db, table, key)): Place,
    bytes: Bytes,
) -> Answer {
    let row = body(&bytes)?;
    if !row.0.is_object() {
        return Err(Failure::bad("a row must be a JSON object"));
    }
    shared.database(&db)?.table::<Json>(&table).put(&key, &row).await?;
    ok(&json!({ "table": table, "key": key }))
}

pub(crate) async fn delete(State(shared): State<Shared>, Path((db, table, key)): Place) -> Answer {
    shared.database(&db)?.table::<Json>(&table).delete(&key).await?;
    ok(&json!({ "table": table, "key": key }))
}

/// One step of a transaction.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "do")]
enum Step {
    PutRow { table: String, key: String, row: Value },
    DeleteRow { table: String, key: String },
    SetDoc { doc: String, path: Vec<String>, value: Value },
    DeleteDoc { doc: String, path: Vec<String> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Steps {
    steps: Vec<Step>,
}

/// Everything or nothing.
pub(crate) async fn transaction(
    State(shared): State<Shared>,
    Path(db): Path<String>,
    bytes: Bytes,
) -> Answer {
    // For numbers that would be rounded.
    body(&bytes)?;
    let Steps { steps } = shaped(&bytes)?;
    if steps.len() > OPERATIONS {
        return Err(Failure::bad(format!("a transaction has at most {OPERATIONS} steps here")));
    }
    let (database, count) = (shared.database(&db)?, steps.len());
    // Rows are read, so that only columns that differ are written.
    let transaction = blocking(move || {
        let mut transaction = database.transaction();
        for step in steps {
            match step {
                Step::PutRow { table, key, row } => {
                    transaction.put(&database.table::<Json>(&table), &key, &Json(row))?
                }
                Step::DeleteRow { table, key } => {
                    transaction.delete(&database.table::<Json>(&table), &key)?
                }
                Step::SetDoc { doc, path, value } => {
                    transaction.set(&database.doc(&doc), &slices(&path), &Json(value))?
                }
                Step::DeleteDoc { doc, path } => {
                    transaction.unset(&database.doc(&doc), &slices(&path))?
                }
            };
        }
        Ok(transaction)
    })
    .await?;
    transaction.commit().await?;
    ok(&json!({ "steps": count }))
}
