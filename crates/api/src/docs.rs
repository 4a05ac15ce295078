//! Documents: what is at a path, which is given as a list of keys in JSON (`?path=["a","b"]`); the whole without.

use crate::error::Failure;
use crate::json::Json;
use crate::routes::{Answer, Shared, blocking, body, ok};
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct At {
    path: Option<String>,
}

impl At {
    fn keys(&self) -> Result<Vec<String>, Failure> {
        let Some(text) = &self.path else { return Ok(Vec::new()) };
        serde_json::from_str(text)
            .map_err(|_| Failure::bad("'path' is a list of keys in JSON, such as [\"a\",\"b\"]"))
    }
}

/// Keys as paths take them.
pub(crate) fn slices(keys: &[String]) -> Vec<&str> {
    keys.iter().map(String::as_str).collect()
}

type Place = Path<(String, String)>;

pub(crate) async fn get(
    State(shared): State<Shared>,
    Path((db, doc)): Place,
    Query(at): Query<At>,
) -> Answer {
    let (database, keys) = (shared.database(&db)?, at.keys()?);
    let value = blocking(move || {
        let value = database.doc(&doc).get::<Json>(&slices(&keys))?;
        value.ok_or_else(|| Failure::absent(format!("there is nothing there in document '{doc}'")))
    })
    .await?;
    ok(&value.0)
}

pub(crate) async fn put(
    State(shared): State<Shared>,
    Path((db, doc)): Place,
    Query(at): Query<At>,
    bytes: Bytes,
) -> Answer {
    let (value, keys) = (body(&bytes)?, at.keys()?);
    shared.database(&db)?.doc(&doc).set(&slices(&keys), &value).await?;
    ok(&json!({ "doc": doc, "path": keys }))
}

pub(crate) async fn delete(
    State(shared): State<Shared>,
    Path((db, doc)): Place,
    Query(at): Query<At>,
) -> Answer {
    let keys = at.keys()?;
    shared.database(&db)?.doc(&doc).delete(&slices(&keys)).await?;
    ok(&json!({ "doc": doc, "path": keys }))
}
