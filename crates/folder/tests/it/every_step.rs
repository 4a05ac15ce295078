//! Every kind of change, with trouble at every single operation of the file system: the program dies there, the disk is full
//! from there on, that one operation fails, or the user overwrites or removes something at that moment.

use crate::replica::{exchange, path};
use crate::world::World;
use anabranch_folder::fs::{FileSystem, Kind, MemFs, Op};
use anabranch_folder::path::RelPath;
use std::io;

/// A world in which the replica 0 is about to run, with changes of replica 1 to apply.
type Scene = fn() -> World;

fn write(world: &World, who: usize, at: &str) {
    let fs = &world.replicas[who].fs;
    let mut contents = world.contents.lock().unwrap();
    contents.forget(fs, &path(at));
    fs.write(&path(at), &contents.fresh()).unwrap();
}

fn remove(world: &World, who: usize, at: &str) {
    let fs = &world.replicas[who].fs;
    world.contents.lock().unwrap().remove(fs, &path(at));
}

fn rename(world: &World, who: usize, from: &str, to: &str) {
    world.replicas[who].fs.rename(&path(from), &path(to), false).unwrap();
}

fn make_dir(world: &World, who: usize, at: &str) {
    world.replicas[who].fs.make_dir(&path(at)).unwrap();
}

/// Both have `d/a`, `d/b` and `c`.
fn agreed() -> World {
    let world = World::new(2);
    make_dir(&world, 0, "d");
    for at in ["c", "d/a", "d/b"] {
        write(&world, 0, at);
    }
    settle(world)
}

fn settle(mut world: World) -> World {
    world.rest();
    world.all_agree();
    world
}

/// Replica 1 records and tells; replica 0 knows, and has not run.
fn told(mut world: World) -> World {
    let disks = world.disks();
    world.replicas[1].run(&disks);
    let [a, b] = world.replicas.get_disjoint_mut([0, 1]).unwrap();
    exchange(a, b);
    world
}

fn in_conflict() -> World {
    let world = agreed();
    write(&world, 0, "c");
    write(&world, 1, "c");
    settle(world)
}

fn copy_of(world: &World) -> String {
    let names = world.replicas[1].names();
    names.into_iter().find(|name| name.contains("conflict")).unwrap()
}

const SCENES: [(&str, Scene); 15] = [
    ("nothing yet", || {
        let world = World::new(2);
        make_dir(&world, 1, "x");
        write(&world, 1, "x/y");
        world.replicas[1].fs.symlink(b"x", &path("link")).unwrap();
        told(world)
    }),
    ("an edit", || {
        let world = agreed();
        write(&world, 1, "c");
        told(world)
    }),
    ("an edit against an edit", || {
        let world = agreed();
        write(&world, 0, "c");
        write(&world, 1, "c");
        told(world)
    }),
    ("a deletion", || {
        let world = agreed();
        remove(&world, 1, "d");
        told(world)
    }),
    ("a rename", || {
        let world = agreed();
        rename(&world, 1, "d/a", "e");
        told(world)
    }),
    ("a renamed directory", || {
        let world = agreed();
        rename(&world, 1, "d", "e");
        told(world)
    }),
    ("a swap", || {
        let world = agreed();
        rename(&world, 1, "c", "t");
        rename(&world, 1, "d/a", "c");
        rename(&world, 1, "t", "d/a");
        told(world)
    }),
    ("a chain", || {
        let world = agreed();
        rename(&world, 1, "c", "e");
        rename(&world, 1, "d/a", "c");
        rename(&world, 1, "d/b", "d/a");
        told(world)
    }),
    ("a directory that becomes one of its files", || {
        let world = agreed();
        rename(&world, 1, "d/a", "t");
        remove(&world, 1, "d");
        rename(&world, 1, "t", "d");
        told(world)
    }),
    ("a file that moves into a directory of its name", || {
        let world = agreed();
        rename(&world, 1, "c", "t");
        make_dir(&world, 1, "c");
        rename(&world, 1, "t", "c/c");
        told(world)
    }),
    ("a directory against an edited file", || {
        let world = agreed();
        write(&world, 0, "c");
        remove(&world, 1, "c");
        make_dir(&world, 1, "c");
        write(&world, 1, "c/x");
        told(world)
    }),
    ("a copy that takes its place", || {
        let world = in_conflict();
        remove(&world, 1, "c");
        told(world)
    }),
    ("a file and its copy that change places", || {
        let mut world = in_conflict();
        let copy = copy_of(&world);
        rename(&world, 1, "c", "t");
        let disks = world.disks();
        world.replicas[1].run(&disks);
        rename(&world, 1, "t", &copy);
        told(world)
    }),
    ("a conflict among three", || {
        let world = in_conflict();
        write(&world, 0, "c");
        write(&world, 1, "c");
        told(world)
    }),
    ("mode and time", || {
        let world = in_conflict();
        let fs = &world.replicas[1].fs;
        fs.set_mode(&path("c"), 0o600).unwrap();
        fs.set_mtime(&path("d/a"), 77).unwrap();
        rename(&world, 1, &copy_of(&world), "e");
        told(world)
    }),
];

/// What happens at one operation.
type Trouble = Box<dyn FnMut(&MemFs, Op) -> io::Result<()> + Send>;

/// Runs replica 0 in every scene with `trouble(world)` at its first operation, then at its second, and so on until it has
/// no more; the world must come to rest as it should each time.
fn at_every_step(trouble: impl Fn(&World) -> Trouble, for_good: bool) {
    for (name, scene) in SCENES {
        for step in 0.. {
            let mut world = scene();
            let (mut trouble, mut count) = (trouble(&world), 0);
            let (sent, happened) = std::sync::mpsc::channel();
            world.run_with(0, move |fs, op, _| {
                count += 1;
                if count == step + 1 || (for_good && count > step) {
                    let _ = sent.send(());
                    trouble(fs, op)
                } else {
                    Ok(())
                }
            });
            if happened.try_recv().is_err() {
                assert!(step > 10, "{name} has only {step} operations");
                break;
            }
            eprintln!("{name}, step {step}");
            world.nothing_is_lost();
            settle(world);
        }
    }
}

#[test]
fn any_operation_may_fail() {
    at_every_step(|_| Box::new(|_, _| Err(io::Error::other("broken"))), false);
}

#[test]
fn the_disk_may_be_full_at_any_moment() {
    let full = |_: &MemFs, op| match op {
        Op::Create | Op::Write | Op::MakeDir | Op::Symlink | Op::Rename => {
            Err(io::ErrorKind::StorageFull.into())
        }
        _ => Ok(()),
    };
    at_every_step(|_| Box::new(full), true);
}

#[test]
fn the_user_may_overwrite_everything_at_any_moment() {
    at_every_step(
        |world| {
            let contents = world.contents.clone();
            Box::new(move |fs, _| {
                let mut contents = contents.lock().unwrap();
                for at in files(fs) {
                    contents.forget(fs, &at);
                    fs.write(&at, &contents.fresh())?;
                }
                Ok(())
            })
        },
        false,
    );
}

#[test]
fn the_user_may_remove_everything_at_any_moment() {
    at_every_step(
        |world| {
            let contents = world.contents.clone();
            Box::new(move |fs, _| {
                let mut contents = contents.lock().unwrap();
                files(fs).iter().for_each(|at| contents.remove(fs, at));
                Ok(())
            })
        },
        false,
    );
}

#[test]
fn the_user_may_move_everything_away_at_any_moment() {
    at_every_step(
        |_| {
            Box::new(move |fs, _| {
                for (n, at) in files(fs).into_iter().enumerate() {
                    fs.rename(&at, &path(&format!("away {n}")), false)?;
                }
                Ok(())
            })
        },
        false,
    );
}

#[test]
fn the_program_may_die_at_any_moment() {
    for (name, scene) in SCENES {
        for step in 1.. {
            let mut world = scene();
            let disks = world.disks();
            if !world.replicas[0].crash(&disks, step) {
                assert!(step > 10, "{name} has only {step} operations");
                break;
            }
            eprintln!("{name}, step {step}");
            world.nothing_is_lost();
            settle(world);
        }
    }
}

fn files(fs: &MemFs) -> Vec<RelPath> {
    let is_file = |stat: &anabranch_folder::fs::Stat| stat.kind == Kind::File;
    let tree =
        fs.tree().into_iter().filter(|(path, (stat, _))| is_file(stat) && !path.is_reserved());
    tree.map(|(path, _)| path).collect()
}
