//! What folders must be: the tree that the entries ask for, worked out here anew and simply, and nothing gone that no user
//! did away with.

use crate::check::{Check, Violation};
use crate::files::Contents;
use crate::node::Node;
use anabranch_core::blob::ChunkHash;
use anabranch_core::ops::Role;
use anabranch_core::path::{Path, Segment};
use anabranch_core::storage::{Order, Storage, StorageError, Table};
use anabranch_folder::base::Base;
use anabranch_folder::fs::{Kind, MemFs, Stat};
use anabranch_folder::path::RelPath;
use anabranch_folder::state::State;
use anabranch_folder::store;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

type Tree = BTreeMap<RelPath, (Stat, Vec<u8>)>;

fn shown(fs: &MemFs) -> Tree {
    fs.tree().into_iter().filter(|(path, _)| !path.is_reserved()).collect()
}

fn failed(text: impl Into<String>) -> Violation {
    Check::Folders.failed(text)
}

fn unreadable(node: usize) -> impl Fn(StorageError) -> Violation {
    move |e| failed(format!("node {node} cannot be read: {e}"))
}

/// While it runs: the folder of `number` shows only what somebody wrote, and whatever nobody did away with is in some
/// folder, temporary files counted.
///
/// # Errors
/// [`Check::Torn`], [`Check::Lost`].
pub fn judge_contents(nodes: &[Node], number: usize, contents: &Contents) -> Result<(), Violation> {
    let Some(folder) = &nodes[number].folder else { return Ok(()) };
    for (path, (stat, bytes)) in shown(&folder.fs) {
        if stat.kind == Kind::File && !contents.was_written(&bytes) {
            let text = format!("{path} of node {number} has {} bytes nobody wrote", bytes.len());
            return Err(Check::Torn.failed(text));
        }
    }
    let folders = nodes.iter().filter_map(|node| node.folder.as_ref());
    let kept: BTreeSet<Vec<u8>> =
        folders.flat_map(|folder| folder.fs.tree().into_values()).map(|(_, bytes)| bytes).collect();
    match contents.alive().find(|content| !kept.contains(*content)) {
        Some(lost) => {
            let text = format!("{} is gone with node {number}", name(lost));
            Err(Check::Lost.failed(text))
        }
        None => Ok(()),
    }
}

fn name(content: &[u8]) -> String {
    String::from_utf8_lossy(&content[..content.len().min(13)]).into_owned()
}

/// In the end: every folder is the tree, its base says so, all are equal and hold what nobody did away with.
///
/// Where an older database was put back under a folder, or both were copied, it may not know of its own values what it
/// replaced: these live on, with content that users did away with. And what such a folder has that it should not have stays
/// where nobody may write: in its place it has not what others could get from it.
///
/// # Errors
/// [`Check::Folders`], [`Check::Lost`].
pub fn judge_folders(
    nodes: &[Node],
    links: &[[usize; 2]],
    contents: &Contents,
) -> Result<(), Violation> {
    let mut first: Option<Tree> = None;
    let groups = groups(nodes, links);
    for (number, node) in nodes.iter().enumerate() {
        let Some(folder) = &node.folder else { continue };
        let Some(group) = groups[number] else { continue };
        let (kept, elsewhere) = kept(nodes, &groups, group);
        let values = values(node).map_err(unreadable(number))?;
        let tree = shown(&folder.fs);
        let gone = gone(&kept, &values);
        if let Some(path) = gone.first().filter(|_| !nodes.iter().any(|node| node.copied)) {
            return Err(Check::Lost.failed(format!("what {path} should be is nowhere")));
        }
        if !gone.is_empty() {
            // Another content may stand there still, or nothing: then only what must not be lost is judged.
            judge_kept(number, &tree, &elsewhere, contents)?;
            continue;
        }
        let implied = judge_tree(&tree, &values)
            .map_err(|text| failed(format!("the folder of node {number}: {text}")))?;
        judge_base(node, &tree, &implied)
            .map_err(|text| failed(format!("the base of node {number}: {text}")))?;
        let temp = folder.fs.tree().into_keys().filter(RelPath::is_reserved).count();
        if temp > 2 {
            return Err(failed(format!("node {number} leaves temporary files behind")));
        }
        judge_kept(number, &tree, &elsewhere, contents)?;
        let expected = first.get_or_insert_with(|| tree.clone());
        let paths: BTreeSet<&RelPath> = expected.keys().chain(tree.keys()).collect();
        let alike = |path: &&&RelPath| match (expected.get(**path), tree.get(**path)) {
            (Some((a, was)), Some((b, is))) => {
                let same = a.kind == b.kind && was == is;
                let meta = a.mode == b.mode && (a.kind != Kind::File || a.mtime_ns == b.mtime_ns);
                same && (meta || implied.contains(**path))
            }
            _ => false,
        };
        if let Some(path) = paths.iter().find(|path| !alike(path)) {
            return Err(failed(format!("node {number} has another {path} than the first")));
        }
    }
    Ok(())
}

/// Whether it has files that its database does not know and that it may not tell of.
fn keeps_to_itself(node: &Node) -> bool {
    let role = node.look(|view| view.role_of(&node.device.id()));
    node.copied && !matches!(role, Ok(role) if role >= Some(Role::Write))
}

/// For each node which others it can get content from, by a number that these share; none for those that have no folder,
/// since nobody there asks for content, and for those that keep to themselves.
fn groups(nodes: &[Node], links: &[[usize; 2]]) -> Vec<Option<usize>> {
    let own = |(number, node): (usize, &Node)| {
        Some(number).filter(|_| node.folder.is_some() && !keeps_to_itself(node))
    };
    let mut groups: Vec<Option<usize>> = nodes.iter().enumerate().map(own).collect();
    for link in links.iter().filter(|link| link.iter().all(|node| !nodes[*node].stranger)) {
        if let [Some(a), Some(b)] = link.map(|node| groups[node]) {
            groups.iter_mut().filter(|group| **group == Some(a)).for_each(|group| *group = Some(b));
        }
    }
    groups
}

/// What is in the folders of a group, and what is in those of others and not in these.
fn kept(
    nodes: &[Node],
    groups: &[Option<usize>],
    group: usize,
) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>) {
    let (mut here, mut elsewhere) = (BTreeSet::new(), BTreeSet::new());
    for (node, of) in nodes.iter().zip(groups) {
        if let (Some(folder), Some(of)) = (&node.folder, of) {
            let kept = if *of == group { &mut here } else { &mut elsewhere };
            kept.extend(folder.fs.tree().into_values().map(|(_, bytes)| bytes));
        }
    }
    elsewhere.retain(|bytes| !here.contains(bytes));
    (here, elsewhere)
}

fn judge_kept(
    number: usize,
    tree: &Tree,
    elsewhere: &BTreeSet<Vec<u8>>,
    contents: &Contents,
) -> Result<(), Violation> {
    let shown: BTreeSet<&[u8]> = tree.values().map(|(_, bytes)| &bytes[..]).collect();
    let lost = |content: &&[u8]| !shown.contains(*content) && !elsewhere.contains(*content);
    match contents.alive().find(lost) {
        Some(lost) => {
            let text = format!("{} is not in the folder of node {number}", name(lost));
            Err(Check::Lost.failed(text))
        }
        None => Ok(()),
    }
}

/// The paths that have a value whose content is in no folder from which it could be had.
fn gone(kept: &BTreeSet<Vec<u8>>, values: &BTreeMap<RelPath, Vec<State>>) -> BTreeSet<RelPath> {
    let files: Vec<(u64, ChunkHash)> =
        kept.iter().map(|bytes| (bytes.len() as u64, ChunkHash::of(bytes))).collect();
    let here = |state: &State| match state.content() {
        Some(content) if content.depth() > 0 => {
            files.iter().any(|(size, _)| *size == content.size())
        }
        Some(content) => files.iter().any(|(_, hash)| *hash == content.root()),
        None => true,
    };
    let lacks = values.iter().filter(|(_, states)| !states.iter().all(here));
    lacks.map(|(path, _)| path.clone()).collect()
}

/// The live values of every path, the winner first.
fn values(node: &Node) -> Result<BTreeMap<RelPath, Vec<State>>, StorageError> {
    let mut found = BTreeMap::new();
    node.look(|view| {
        view.scan_cells(&store(), &Path::default(), None, &mut |cell| {
            let segments = cell.path.segments();
            if let [Segment::Bytes(bytes)] = &segments[..]
                && let Ok(path) = RelPath::new(bytes.clone())
            {
                let states = cell.values.iter().filter_map(|v| State::decode(&v.value).ok());
                found.insert(path, states.collect::<Vec<_>>());
            }
            ControlFlow::Continue(())
        })
    })?;
    found.retain(|_, values| !values.is_empty());
    Ok(found)
}

/// Whether something on a disk is what a state says.
fn is(found: &(Stat, Vec<u8>), state: &State) -> bool {
    let (stat, bytes) = found;
    match state {
        State::File { content, mode, mtime_ns, .. } => {
            let whole = content.depth() > 0 || content.root() == ChunkHash::of(bytes);
            (stat.kind, stat.mode, stat.mtime_ns) == (Kind::File, *mode, *mtime_ns)
                && bytes.len() as u64 == content.size()
                && whole
        }
        State::Dir { mode } => stat.kind == Kind::Dir && stat.mode == *mode,
        State::Symlink { target } => stat.kind == Kind::Symlink && bytes == target,
    }
}

/// Compares a tree with what the values ask for: at each path the winner, or a directory where something lives below it;
/// next to it, whatever else was written there concurrently. Returns the directories that nobody asked for themselves.
fn judge_tree(
    tree: &Tree,
    values: &BTreeMap<RelPath, Vec<State>>,
) -> Result<BTreeSet<RelPath>, String> {
    let parents: BTreeSet<RelPath> = values.keys().flat_map(RelPath::ancestors).collect();
    let mut rest: BTreeSet<&RelPath> = tree.keys().collect();
    let mut implied = BTreeSet::new();
    let mut copies: Vec<(&RelPath, &State)> = Vec::new();
    for path in values.keys().chain(&parents).collect::<BTreeSet<_>>() {
        let mut groups: Vec<&State> = Vec::new();
        for state in values.get(path).into_iter().flatten() {
            if !groups.iter().any(|group| group.same_content(state)) {
                groups.push(state);
            }
        }
        let winner = match parents.contains(path) {
            true => groups.iter().position(|state| state.is_dir()),
            false => Some(0),
        };
        let found = tree.get(path).ok_or_else(|| format!("{path} is not there"))?;
        rest.remove(path);
        match winner {
            Some(winner) if !is(found, groups[winner]) => {
                return Err(format!("{path} is {:?} and should be {:?}", found.0, groups[winner]));
            }
            None if found.0.kind != Kind::Dir => return Err(format!("{path} is no directory")),
            None => _ = implied.insert(path.clone()),
            Some(_) => {}
        }
        let losers = groups.into_iter().enumerate().filter(|(i, _)| Some(*i) != winner);
        copies.extend(losers.filter(|(_, s)| !s.is_dir()).map(|(_, state)| (path, state)));
    }
    for (of, state) in copies {
        let beside = |path: &&&RelPath| {
            let name = String::from_utf8_lossy(path.name());
            path.parent() == of.parent() && name.contains(" (conflict ") && is(&tree[**path], state)
        };
        let Some(copy) = rest.iter().find(beside).copied() else {
            return Err(format!("there is no conflict copy of {of} that is {state:?}"));
        };
        rest.remove(copy);
    }
    match rest.first() {
        Some(path) => Err(format!("nobody asked for {path}")),
        None => Ok(implied),
    }
}

/// The base says what is there, path by path.
fn judge_base(node: &Node, tree: &Tree, implied: &BTreeSet<RelPath>) -> Result<(), String> {
    const PREFIX: &[u8] = b"base/";
    let mut rows: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let content = node.disk.content();
    let tx = content.read().map_err(|e| e.to_string())?;
    tx.scan(Table::Local, PREFIX, None, Order::Ascending, &mut |key, value| {
        let Some(path) = key.strip_prefix(PREFIX) else { return ControlFlow::Break(()) };
        rows.insert(path.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })
    .map_err(|e| e.to_string())?;
    for (path, found) in tree {
        let Some(row) = rows.remove(path.as_bytes()) else {
            return Err(format!("knows nothing of {path}"));
        };
        let base = Base::decode(&row).map_err(|e| format!("{path}: {e}"))?;
        if !is(found, &base.state) && !implied.contains(path) {
            return Err(format!("takes {path} for {:?}", base.state));
        }
    }
    match rows.into_keys().next() {
        Some(path) => Err(format!("has {} still", String::from_utf8_lossy(&path))),
        None => Ok(()),
    }
}
