//! A chat without a server: a table of messages, kept in step live.
//!
//! `chat DIR NAME` founds a chat, or goes on with the one in DIR, and prints a ticket. `chat DIR NAME TICKET` joins.

use anabranch::{Database, Error, Intent, Node, Role, Segment, SyncHandle, Ticket};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, BufReader};

#[derive(Serialize, Deserialize)]
struct Message {
    from: String,
    text: String,
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [dir, name] => chat(dir, name, None).await,
        [dir, name, ticket] => chat(dir, name, Some(ticket)).await,
        _ => {
            eprintln!("usage: chat DIR NAME [TICKET]");
            return std::process::ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn chat(dir: &str, name: &str, ticket: Option<&str>) -> Result<(), Error> {
    let node = Node::open(dir)?;
    let mut syncs: Vec<SyncHandle> = Vec::new();
    let chat = match ticket {
        Some(ticket) => {
            let ticket: Ticket = ticket.parse().map_err(anabranch::NodeError::from)?;
            let chat = node.join(&ticket, "chat").await?;
            for address in &ticket.addresses {
                syncs.push(chat.keep_in_step(&Intent::new(address))?);
            }
            chat
        }
        None => match node.database("chat") {
            Ok(chat) => {
                syncs = node.resume()?;
                chat
            }
            Err(_) => node.create("chat")?,
        },
    };
    // A free port of this machine: enough for two terminals.
    let serving = node.serve("0", &[&chat]).await?;
    if syncs.is_empty() {
        println!("ticket: {}", chat.ticket(Role::Write, &serving.address()).await?);
    }
    let mut watch = chat.watch()?;
    let messages = chat.table::<Message>("messages");
    messages.each("", None, &mut |_, message| {
        println!("{}: {}", message.from, message.text);
        ControlFlow::Continue(())
    })?;
    println!("(type a line; Ctrl-D leaves)");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            change = watch.next() => {
                let change = change?;
                for write in change.writes.iter().filter(|_| !change.local) {
                    // The cell of the row itself tells that it was inserted.
                    let [Segment::Text(key)] = &write.path.segments()[..] else { continue };
                    if let Some(message) = messages.get(key)? {
                        println!("{}: {}", message.from, message.text);
                    }
                }
            }
            line = lines.next_line() => match line {
                Ok(Some(text)) if !text.is_empty() => say(&chat, name, text).await?,
                Ok(Some(_)) => {}
                _ => break,
            }
        }
    }
    for sync in syncs {
        sync.stop().await;
    }
    Ok(())
}

/// Keys that sort by time; the device tells two of the same microsecond apart.
async fn say(chat: &Database, name: &str, text: String) -> Result<(), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let key = format!("{now:016x}-{name}");
    chat.table("messages").put(&key, &Message { from: name.to_owned(), text }).await
}
