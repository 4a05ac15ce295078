//! What the user means by HERE, THERE and REPLICA. An existing path wins over what a text could mean otherwise, except a
//! database of that name: then it is refused and both spellings are shown. Nothing is opened or connected here.

use crate::failure::Failure;
use anabranch::engine::node::Record;
use anabranch::engine::transport::{Address, AddressError};
use anabranch::{Node, Ticket};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes read in search of a ticket.
const TICKET_BYTES: u64 = 128 * 1024;

/// What a text on the command line names.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A path that exists.
    Folder(PathBuf),
    /// A database of this device.
    Database(Record),
    /// A ticket.
    Ticket(Box<Ticket>),
    /// A node elsewhere, and perhaps a replica on it.
    Remote(Address),
    /// Nothing there is: a path or a name that may come into being.
    New(String),
}

/// Finds out what `text` names.
pub(crate) fn resolve(node: &Node, text: &str) -> Result<Place, Failure> {
    if text == "-" || text.starts_with('@') {
        return Ok(Place::Ticket(Box::new(ticket(text)?)));
    }
    let name = text.strip_prefix("db:").unwrap_or(text);
    let records = node.inner().records()?;
    let database = records
        .into_iter()
        .find(|r| !r.folder && (r.name == name || r.database.to_string() == name));
    classify(text, Path::new(text).symlink_metadata().is_ok(), database)
}

/// As [`resolve`], when it is known what is around.
fn classify(text: &str, exists: bool, database: Option<Record>) -> Result<Place, Failure> {
    if let Some(name) = text.strip_prefix("db:") {
        return database.map(Place::Database).ok_or_else(|| no_database(name));
    }
    if exists {
        return match database {
            None => Ok(Place::Folder(PathBuf::from(text))),
            Some(_) => Err(Failure::usage(format!("'{text}' is a path here and also a database"))
                .hint(format!("write ./{text} for the path, db:{text} for the database"))),
        };
    }
    if let Some(record) = database {
        return Ok(Place::Database(record));
    }
    if text.starts_with("ticket_") {
        return Ok(Place::Ticket(Box::new(parse_ticket(text)?)));
    }
    if text.contains(':') {
        return match Address::parse(text) {
            Ok(address) => Ok(Place::Remote(address)),
            // A slash before the colon: a path.
            Err(AddressError::NoHost(_)) => Ok(Place::New(text.to_owned())),
            Err(error) => Err(Failure::usage(error.to_string())),
        };
    }
    if text.is_empty() {
        return Err(Failure::usage("a name or path is empty"));
    }
    Ok(Place::New(text.to_owned()))
}

/// There is no database called `name`.
pub(crate) fn no_database(name: &str) -> Failure {
    Failure::failed(format!("there is no database '{name}' here"))
        .hint("'anabranch db ls' lists those there are, 'anabranch db new' makes one")
}

/// Reads a ticket: the text itself, `@FILE`, or `-` for standard input, so that the secret need not stand in the list of
/// processes.
pub(crate) fn ticket(text: &str) -> Result<Ticket, Failure> {
    let read = match text.strip_prefix('@') {
        _ if text == "-" => read_ticket(io::stdin().lock()),
        Some(file) => File::open(file).and_then(read_ticket),
        None => return parse_ticket(text),
    };
    let from = if text == "-" { "standard input" } else { text };
    let text = read
        .map_err(|e| Failure::failed(format!("no ticket could be read from {from}")).because(&e))?;
    parse_ticket(&text)
}

fn read_ticket(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(TICKET_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn parse_ticket(text: &str) -> Result<Ticket, Failure> {
    text.parse().map_err(|e: anabranch::engine::core::ticket::TicketError| {
        let failure = Failure::usage(e.to_string());
        if Path::new(text).is_file() {
            failure.hint(format!("to read a ticket from a file, write @{text}"))
        } else {
            failure
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch::DatabaseId;

    fn record() -> Record {
        Record {
            database: DatabaseId([1; 32]),
            name: "notes".into(),
            folder: false,
            path: "/x".into(),
            intents: Vec::new(),
            ticket: None,
            request: None,
        }
    }

    fn kind(text: &str, exists: bool, known: bool) -> String {
        match classify(text, exists, known.then(record)) {
            Ok(Place::Folder(path)) => format!("folder {}", path.display()),
            Ok(Place::Database(record)) => format!("database {}", record.name),
            Ok(Place::Ticket(_)) => "ticket".into(),
            Ok(Place::Remote(address)) => format!("remote {address}"),
            Ok(Place::New(text)) => format!("new {text}"),
            Err(failure) => format!("{} {}", failure.exit_code(), failure.text()),
        }
    }

    #[test]
    fn an_existing_path_wins_over_an_address() {
        assert_eq!(kind("host:x", true, false), "folder host:x");
        assert_eq!(kind("host:x", false, false), "remote host:x");
        assert_eq!(kind("ticket_office", true, false), "folder ticket_office");
    }

    #[test]
    fn a_path_and_a_database_of_one_name_are_refused_with_both_spellings() {
        let text = kind("notes", true, true);
        assert!(text.starts_with("2 "), "{text}");
        assert!(text.contains("./notes") && text.contains("db:notes"), "{text}");
        assert_eq!(kind("db:notes", true, true), "database notes");
        assert_eq!(kind("./notes", true, false), "folder ./notes");
        assert_eq!(kind("notes", false, true), "database notes");
    }

    #[test]
    fn what_is_not_there_yet_is_new() {
        assert_eq!(kind("notes", false, false), "new notes");
        assert_eq!(kind("./a:b", false, false), "new ./a:b");
        assert!(kind("db:notes", false, false).contains("there is no database 'notes' here"));
        assert!(kind("", false, false).starts_with("2 "));
    }

    #[test]
    fn addresses_are_read_and_wrong_ones_explained() {
        assert_eq!(kind("ws://h:1/notes", false, false), "remote ws://h:1/notes");
        assert_eq!(kind("me@host:~/x", false, false), "remote me@host:~/x");
        assert!(kind("iroh:abc", false, false).starts_with("2 this build has no transport"));
        assert!(kind("http://u:p@h/x", false, false).contains("cannot contain a user name"));
        assert!(kind("ticket_abc", false, false).starts_with("2 the ticket is damaged"));
    }
}
