//! A to-do list that works offline and merges: a row an item.

use anabranch::{Error, Intent, Node, NodeError, Role, Table, Ticket};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Serialize, Deserialize)]
struct Item {
    text: String,
    done: bool,
}

const USAGE: &str =
    "usage: todo DIR add TEXT… | done NUMBER | ls | share [PORT] | join TICKET | sync";
/// Where 'share' serves on this machine unless told otherwise.
const PORT: &str = "7710";
/// How long 'sync' waits for a peer.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args).await {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("{USAGE}");
            std::process::ExitCode::from(2)
        }
        Err(e) => {
            eprintln!("error: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// False when the command line makes no sense.
async fn run(args: &[&str]) -> Result<bool, Error> {
    let [dir, command, rest @ ..] = args else { return Ok(false) };
    let node = Node::open(dir)?;
    if let ("join", [ticket]) = (*command, rest) {
        let ticket: Ticket = ticket.parse().map_err(NodeError::from)?;
        let list = node.join(&ticket, "todo").await?;
        for address in &ticket.addresses {
            list.keep_in_step(&Intent::new(address))?.stop().await;
        }
        return show(&list.table("items")).map(|()| true);
    }
    let list = match node.database("todo") {
        Ok(list) => list,
        Err(_) => node.create("todo")?,
    };
    let items = list.table::<Item>("items");
    match (*command, rest) {
        ("add", text @ [_, ..]) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let key = format!("{:016x}-{}", now.as_micros(), node.id().short());
            items.put(&key, &Item { text: text.join(" "), done: false }).await?;
        }
        ("done", [number]) => {
            let all = items.rows("", None, usize::MAX)?;
            let place = number.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            let Some((key, item)) = place.and_then(|n| all.into_iter().nth(n)) else {
                let text = format!("there is no item {number}; 'ls' numbers them");
                return Err(Error::Resolve(text));
            };
            items.put(&key, &Item { done: true, ..item }).await?;
        }
        ("ls", []) => {}
        ("share", [] | [_]) => {
            let port = rest.first().unwrap_or(&PORT);
            let serving = node.serve(port, &[&list]).await?;
            println!("{}", list.ticket(Role::Write, &serving.address()).await?);
            // Without a handler Ctrl-C would end it as well, only less politely.
            let _ = tokio::signal::ctrl_c().await;
            return Ok(true);
        }
        ("sync", []) => {
            for mut sync in node.resume()? {
                match tokio::time::timeout(PATIENCE, sync.in_step()).await {
                    Ok(standing) => println!("in step with {}", standing?.addresses.join(", ")),
                    Err(_) => {
                        for why in sync.standing().reasons() {
                            println!("{why}");
                        }
                    }
                }
                sync.stop().await;
            }
        }
        _ => return Ok(false),
    }
    show(&items).map(|()| true)
}

fn show(items: &Table<Item>) -> Result<(), Error> {
    for (n, (_, item)) in items.rows("", None, usize::MAX)?.into_iter().enumerate() {
        println!("{:3} [{}] {}", n + 1, if item.done { "x" } else { " " }, item.text);
    }
    Ok(())
}
