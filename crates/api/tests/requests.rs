//! The API as programs use it: requests over a real socket and a real port.

#![allow(clippy::unwrap_used, clippy::panic)]

use anabranch::engine::node::{Record, Replica, Replicas};
use anabranch::engine::sync::frame::Request;
use anabranch::engine::sync::rights::{Asked, Requests};
use anabranch::{Intent, Node, NodeId, Role};
use anabranch_api::{Api, Listener, OPENAPI, SOCKET, serve, token};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

struct InHome(Node);

impl Replicas for InHome {
    fn records(&self) -> Vec<Record> {
        self.0.inner().records().unwrap()
    }

    fn open(&self, record: &Record) -> Option<Arc<Replica>> {
        self.0.inner().open_record(record).ok()
    }
}

/// A node with its API on its socket.
struct World {
    node: Node,
    home: TempDir,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl World {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let node = Node::open(home.path()).unwrap();
        let listener = Listener::unix(home.path()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let api = Api::new(node.clone(), Arc::new(InHome(node.clone())));
        let task = tokio::spawn(serve(api, listener, stopped));
        Self { node, home, stop, task }
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut socket = UnixStream::connect(self.home.path().join(SOCKET)).await.unwrap();
        let (status, text) = ask(&mut socket, method, path, &[], body).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn done(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
        assert!(!self.home.path().join(SOCKET).exists(), "the socket is gone");
    }
}

fn request(method: &str, path: &str, headers: &[&str], body: Option<Value>) -> String {
    let body = body.map_or_else(String::new, |body| body.to_string());
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

async fn ask(
    link: &mut (impl AsyncRead + AsyncWrite + Unpin),
    method: &str,
    path: &str,
    headers: &[&str],
    body: Option<Value>,
) -> (u16, String) {
    // What is too large is refused before all of it is read.
    let _ = link.write_all(request(method, path, headers, body).as_bytes()).await;
    let mut text = String::new();
    link.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_of_a_sealed_database_has_no_rows_to_show() {
    let (world, relay) = (World::new().await, World::new().await);
    let new = json!({ "name": "diary", "sealed": true });
    world.done("POST", "/v1/databases", Some(new)).await;
    world.done("PUT", "/v1/databases/diary/tables/days/one", Some(json!({ "n": 1 }))).await;
    let described = world.done("GET", "/v1/databases/diary", None).await;
    assert_eq!((&described["sealed"], described["digest"].is_null()), (&json!(true), false));
    let diary = world.node.database("diary").unwrap();
    let serving = world.node.serve("0", &[&diary]).await.unwrap();
    let ticket = diary.ticket(Role::Relay, &serving.address()).await.unwrap();
    let joined = json!({ "ticket": ticket.to_string(), "name": "diary" });
    let described = relay.done("POST", "/v1/join", Some(joined)).await;
    assert_eq!((&described["role"], described["digest"].is_null()), (&json!("relay"), true));
    let (status, refused) = relay.ask("GET", "/v1/databases/diary/tables/days/one", None).await;
    assert_eq!((status, &refused["code"]), (409, &json!("no-key")));
    drop(serving);
    relay.end().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_documents_are_written_and_read() {
    let world = World::new().await;
    world.done("POST", "/v1/databases", Some(json!({ "name": "todo" }))).await;
    let (status, taken) = world.ask("POST", "/v1/databases", Some(json!({ "name": "todo" }))).await;
    assert_eq!((status, &taken["code"]), (409, &json!("taken")));
    let row = "/v1/databases/todo/tables/tasks/buy%20milk";
    world.done("PUT", row, Some(json!({ "done": false, "n": 1 }))).await;
    world.done("PUT", row, Some(json!({ "done": true, "n": 1 }))).await;
    assert_eq!(world.done("GET", row, None).await, json!({ "done": true, "n": 1 }));
    let table = "/v1/databases/todo/tables/tasks";
    for n in 0..5 {
        world.done("PUT", &format!("{table}/k{n}"), Some(json!({ "n": n }))).await;
    }
    let page = world.done("GET", &format!("{table}?prefix=k&limit=3"), None).await;
    assert_eq!(page["next"], "k2");
    let page = world.done("GET", &format!("{table}?prefix=k&limit=3&after=k2"), None).await;
    assert_eq!(
        page,
        json!({ "rows": [{ "key": "k3", "row": { "n": 3 } }, { "key": "k4", "row": { "n": 4 } }], "next": null })
    );
    world.done("DELETE", row, None).await;
    assert_eq!(world.ask("GET", row, None).await.0, 404);
    let doc = "/v1/databases/todo/docs/settings";
    world.done("PUT", &format!("{doc}?path=[%22a%22,%22b%22]"), Some(json!({ "c": [1, 2] }))).await;
    assert_eq!(world.done("GET", doc, None).await, json!({ "a": { "b": { "c": [1, 2] } } }));
    world.done("DELETE", &format!("{doc}?path=[%22a%22]"), None).await;
    assert_eq!(world.ask("GET", doc, None).await.0, 404);
    let steps = json!({ "steps": [
        { "do": "put_row", "table": "tasks", "key": "both", "row": { "x": { "$bytes": "AP8=" } } },
        { "do": "set_doc", "doc": "settings", "path": ["theme"], "value": "dark" },
        { "do": "delete_row", "table": "tasks", "key": "k0" },
    ] });
    let before = world.done("GET", "/v1/databases/todo", None).await["entries"].as_u64().unwrap();
    world.done("POST", "/v1/databases/todo/transaction", Some(steps)).await;
    let after = world.done("GET", "/v1/databases/todo", None).await;
    assert_eq!((after["entries"].as_u64().unwrap(), &after["role"]), (before + 1, &json!("admin")));
    assert_eq!(
        world.done("GET", &format!("{table}/both"), None).await,
        json!({ "x": { "$bytes": "AP8=" } })
    );
    assert_eq!(
        world.done("GET", "/v1/databases/todo/conflicts", None).await,
        json!({ "conflicts": [] })
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_refused_with_a_sentence() {
    let world = World::new().await;
    world.done("POST", "/v1/databases", Some(json!({ "name": "todo" }))).await;
    let row = "/v1/databases/todo/tables/t/k";
    for (method, path, body, status, says) in [
        ("GET", "/v1/nothing", None, 404, "openapi.json"),
        ("PATCH", row, None, 405, "another method"),
        ("GET", "/v1/databases/other/tables/t/k", None, 404, "no database 'other'"),
        ("PUT", row, Some(json!([1])), 400, "a row must be a JSON object"),
        ("PUT", row, None, 400, "the body is no JSON"),
        ("POST", "/v1/databases", Some(json!({ "nam": "x" })), 400, "does not fit"),
        ("POST", "/v1/databases", Some(json!({ "name": "a/b" })), 400, "cannot name a database"),
        ("GET", "/v1/databases/todo/docs/d?path=a", None, 400, "a list of keys in JSON"),
        ("GET", "/v1/databases/todo/tables/t?limit=many", None, 400, "limit"),
        ("POST", "/v1/join", Some(json!({ "ticket": "x", "name": "y" })), 400, "ticket"),
        (
            "PUT",
            "/v1/databases/todo/syncs",
            Some(json!({ "address": "nowhere" })),
            400,
            "http://host:port",
        ),
        (
            "PUT",
            "/v1/databases/todo/syncs",
            Some(json!({ "address": "h:x", "every": "1ms" })),
            400,
            "once a second",
        ),
        (
            "DELETE",
            "/v1/databases/todo/syncs",
            Some(json!({ "address": "h:x" })),
            404,
            "not kept in step",
        ),
        ("POST", "/v1/databases/todo/sync", None, 400, "no address is known"),
    ] {
        let (got, answer) = world.ask(method, path, body).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(text.contains(says), "{method} {path}: {answer}");
    }
    let mut socket = UnixStream::connect(world.home.path().join(SOCKET)).await.unwrap();
    let big =
        request("PUT", row, &[], None).replace("Content-Length: 0", "Content-Length: 3000000");
    socket.write_all(big.as_bytes()).await.unwrap();
    let mut bytes = [0; 4096];
    let n = socket.read(&mut bytes).await.unwrap();
    let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
    assert!(text.starts_with("HTTP/1.1 413") && text.contains("\"error\""), "{text}");
    drop(socket);
    let rounded = "{\"n\": 99999999999999999999}";
    let mut socket = UnixStream::connect(world.home.path().join(SOCKET)).await.unwrap();
    let raw = format!(
        "PUT {row} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{rounded}",
        rounded.len()
    );
    socket.write_all(raw.as_bytes()).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("does not fit into 64 bits"), "{text}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_port_nothing_is_answered_without_the_token() {
    let home = tempfile::tempdir().unwrap();
    let node = Node::open(home.path()).unwrap();
    let secret = token(home.path(), || node.inner().device().random()).unwrap();
    let far = Listener::tcp("0.0.0.0:0".parse().unwrap(), secret.clone()).await;
    assert!(far.unwrap_err().to_string().contains("on this machine"));
    let listener = Listener::tcp("127.0.0.1:0".parse().unwrap(), secret.clone()).await.unwrap();
    let address = listener.place().strip_prefix("http://").unwrap().to_owned();
    let (stop, stopped) = watch::channel(false);
    let api = Api::new(node.clone(), Arc::new(InHome(node)));
    let task = tokio::spawn(serve(api, listener, stopped));
    let bearer = format!("Authorization: Bearer {secret}");
    let wrong = format!("Authorization: Bearer {}x", &secret[..secret.len() - 1]);
    for (path, headers, status) in [
        ("/health", vec![], 200),
        ("/v1/openapi.json", vec![], 200),
        ("/v1/status", vec![], 401),
        ("/metrics", vec![], 401),
        ("/v1/events", vec![], 401),
        ("/v1/status", vec![&*wrong], 401),
        ("/v1/status", vec![&*bearer], 200),
    ] {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        let (got, body) = ask(&mut socket, "GET", path, &headers, None).await;
        assert_eq!(got, status, "{path}: {body}");
        assert!(status != 401 || body.contains("api.token"), "{body}");
    }
    stop.send_replace(true);
    task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_syncs_are_streamed_and_shown() {
    let world = World::new().await;
    let far = Node::in_memory().unwrap();
    let theirs = far.create("todo").unwrap();
    let serving = far.serve("0", &[&theirs]).await.unwrap();
    let ticket = theirs.ticket(Role::Write, &serving.address()).await.unwrap();
    let joined = json!({ "ticket": ticket.to_string(), "name": "todo" });
    assert_eq!(world.done("POST", "/v1/join", Some(joined)).await["role"], "write");
    let mut stream = UnixStream::connect(world.home.path().join(SOCKET)).await.unwrap();
    let wish = request("GET", "/v1/events?database=todo", &[], None);
    stream.write_all(wish.as_bytes()).await.unwrap();
    let declared = json!({ "address": serving.address(), "every": "1h" });
    world.done("PUT", "/v1/databases/todo/syncs", Some(declared)).await;
    // As 'serve' carries it out.
    let database = world.node.database("todo").unwrap();
    let mut sync = database.keep_in_step(&Intent::new(serving.address())).unwrap();
    sync.in_step().await.unwrap();
    theirs.table("t").put("k", &json!({ "from": "afar" })).await.unwrap();
    let mut text = String::new();
    let read = async {
        let mut bytes = [0; 4096];
        while !(text.contains("event: change") && text.contains("\"state\":\"in-step\"")) {
            let n = stream.read(&mut bytes).await.unwrap();
            assert!(n > 0, "the stream ended: {text}");
            text.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(20), read).await.unwrap();
    let change = text.split("event: change\ndata: ").nth(1).unwrap().lines().next().unwrap();
    let change: Value = serde_json::from_str(change).unwrap();
    assert_eq!((&change["local"], &change["writes"][0]["path"]), (&json!(false), &json!(["k"])));
    let status = world.done("GET", "/v1/status", None).await;
    assert_eq!(status["syncs"][0]["state"], "in-step");
    assert_eq!(status["syncs"][0]["device"], far.id().to_string());
    assert_eq!(status["replicas"][0]["name"], "todo");
    let syncs = world.done("GET", "/v1/databases/todo/syncs", None).await;
    assert_eq!(syncs["syncs"][0]["standing"]["state"], "in-step");
    let once = json!({ "address": serving.address() });
    let once = world.done("POST", "/v1/databases/todo/sync", Some(once)).await;
    assert_eq!(once["syncs"][0]["why"], Value::Null);
    let (status, metrics) = world.ask("GET", "/metrics", None).await;
    let metrics = metrics.as_str().unwrap();
    assert_eq!(status, 200);
    assert!(metrics.contains("anabranch_sync_in_step{name=\"todo\""), "{metrics}");
    assert!(
        metrics.lines().all(|line| line.starts_with('#')
            || line.rsplit_once(' ').is_some_and(|(_, v)| v.parse::<f64>().is_ok())),
        "{metrics}"
    );
    sync.stop().await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_ask_are_let_in_rejected_and_forgotten() {
    let world = World::new().await;
    world.done("POST", "/v1/databases", Some(json!({ "name": "todo" }))).await;
    let replica = Arc::clone(world.node.database("todo").unwrap().replica());
    let asks = |seed: u8, role| {
        let request = Request { role, text: format!("device {seed}"), person: None };
        replica.ask(&NodeId([seed; 32]), request).unwrap()
    };
    let at = |seed: u8| format!("/v1/databases/todo/requests/{}", NodeId([seed; 32]));
    asks(1, Role::Write);
    asks(2, Role::Admin);
    let listed = world.done("GET", "/v1/databases/todo/requests", None).await;
    assert_eq!(listed["requests"][0]["message"], "device 1");
    assert_eq!(listed["requests"][1]["role"], "admin");
    let approve = Some(json!({ "approved": true }));
    assert_eq!(world.done("PUT", &at(1), approve.clone()).await["role"], "write");
    assert_eq!(world.ask("PUT", &at(1), approve.clone()).await.0, 404);
    let (status, asks_for_admin) = world.ask("PUT", &at(2), approve).await;
    assert_eq!(status, 400, "{asks_for_admin}");
    let reject = Some(json!({ "approved": false }));
    world.done("PUT", &at(2), reject).await;
    assert_eq!(asks(2, Role::Read), Some(Asked::Rejected));
    let listed = world.done("GET", "/v1/databases/todo/requests", None).await;
    assert_eq!(listed["requests"][0]["rejected"], true);
    world.done("DELETE", &at(2), None).await;
    assert_eq!(world.ask("DELETE", &at(2), None).await.0, 404);
    assert_eq!(world.ask("DELETE", "/v1/databases/todo/requests/x", None).await.0, 400);
    let admin = Some(json!({ "approved": false, "role": "admin" }));
    assert_eq!(world.ask("PUT", &at(3), admin).await.0, 400);
    world.end().await;
}

/// The description and what is answered are one list.
#[test]
fn the_description_names_every_route_and_no_other() {
    let described: Value = serde_json::from_str(OPENAPI).unwrap();
    let described: BTreeSet<String> =
        described["paths"].as_object().unwrap().keys().cloned().collect();
    let source = include_str!("../src/routes.rs");
    let routes =
        source.split("\"/").skip(1).map(|rest| format!("/{}", rest.split('"').next().unwrap()));
    let routes: BTreeSet<String> = routes.filter(|route| !route.contains(' ')).collect();
    assert_eq!(described, routes);
}
