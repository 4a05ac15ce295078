//! `sim`: attacks the program's own engine in a simulation, for whoever wants to see whether its promises hold.

use crate::args::SimArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use crate::progress::Meter;
use anabranch_sim::campaign::{Campaign, Failure as Failed, Summary, median};
use anabranch_sim::file;
use anabranch_sim::plan::{MOST_NODES, Options, Plan};
use anabranch_sim::shrink::{shrink, story};
use anabranch_sim::world::{Outcome, simulate};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

/// How long a failing plan is made smaller.
const SHRINKING: Duration = Duration::from_secs(60);

/// Runs one seed, or many.
pub(crate) fn run(context: &Context, args: &SimArgs) -> Result<(), Failure> {
    if !(2..=MOST_NODES).contains(&args.nodes) {
        return Err(Failure::usage(format!("--nodes takes a number from 2 to {MOST_NODES}")));
    }
    let options = Options { nodes: args.nodes, faults: args.faults.clone() };
    if let Some(path) = &args.plan {
        return replay(context, path, args);
    }
    match args.seed {
        Some(seed) if args.seeds.is_none() => one(context, seed, &options, args),
        first => many(context, first, args.seeds.unwrap_or(100), &options, args),
    }
}

fn one(context: &Context, seed: u64, options: &Options, args: &SimArgs) -> Result<(), Failure> {
    let plan = Plan::generate(seed, options);
    let outcome = simulate(&plan, args.story && !context.output.json);
    if let Some(violation) = &outcome.violation {
        let failed = Failed { seed, violation: violation.clone() };
        return fail(context, &failed, options, args);
    }
    went_well(context, &plan, &outcome, args)
}

/// Plays what a file says.
fn replay(context: &Context, path: &Path, args: &SimArgs) -> Result<(), Failure> {
    let unread = |e: &dyn std::error::Error| {
        Failure::failed(format!("the plan {} cannot be read", path.display())).because(e)
    };
    let text = std::fs::read_to_string(path).map_err(|e| unread(&e))?;
    let plan = file::read(&text).map_err(|e| unread(&e))?;
    let outcome = simulate(&plan, args.story && !context.output.json);
    let Some(violation) = &outcome.violation else {
        return went_well(context, &plan, &outcome, args);
    };
    if !context.output.json {
        tell_failure(context, &plan, &outcome)?;
    }
    Err(Failure::failed(format!("{}: {violation}", path.display())))
}

fn went_well(
    context: &Context,
    plan: &Plan,
    outcome: &Outcome,
    args: &SimArgs,
) -> Result<(), Failure> {
    let trace = HEXLOWER.encode(&outcome.trace);
    let mut text =
        if args.story { format!("{}\n{}", story(plan), outcome.story) } else { String::new() };
    let (seed, stats) = (plan.seed, &outcome.stats);
    let faults = stats.faults.values().sum::<u64>();
    text.push_str(&format!(
        "seed {seed}: {} nodes, {} operations, {faults} faults, {} entries in {:.0} simulated seconds; all equal\ntrace {trace}",
        stats.nodes,
        stats.operations,
        stats.entries,
        stats.time as f64 / 1e6,
    ));
    let object = json!({
        "seed": seed, "nodes": stats.nodes, "operations": stats.operations, "faults": faults,
        "entries": stats.entries, "simulated_seconds": stats.time as f64 / 1e6, "trace": trace,
    });
    context.output.answer(&text, &object)
}

fn many(
    context: &Context,
    first: Option<u64>,
    seeds: u64,
    options: &Options,
    args: &SimArgs,
) -> Result<(), Failure> {
    let first = match first {
        Some(first) => first,
        None => random_seed()?,
    };
    context.output.note(&format!("seeds {first} to {}", first.wrapping_add(seeds.max(1) - 1)));
    let threads = available_parallelism().map_or(1, usize::from);
    let meter = Mutex::new(Meter::new(context.output, "simulating"));
    let progress = |summary: &Summary| {
        let rate = summary.seeds as f64 / summary.took.as_secs_f64().max(0.001);
        let text = format!("{} of {seeds} seeds, {rate:.0} a second", summary.seeds);
        meter.lock().unwrap_or_else(PoisonError::into_inner).set(summary.seeds, Some(seeds), text);
    };
    let options = options.clone();
    let campaign = Campaign { first, seeds, options, threads, go_on: args.go_on };
    let (summary, failures) = campaign.run(&progress);
    drop(meter);
    match &failures[..] {
        [failed, ..] if !args.go_on => fail(context, failed, &campaign.options, args),
        _ => {
            let text = told(first, &summary, &failures);
            context.output.answer(&text, &object(first, &summary, &failures))?;
            match failures.len() {
                0 => Ok(()),
                failed => Err(Failure::failed(format!("{failed} seeds failed"))),
            }
        }
    }
}

fn random_seed() -> Result<u64, Failure> {
    // Any number will do, and this one differs from run to run.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(now.map_or(1, |since| since.as_micros() as u64 % 1_000_000_007))
}

fn told(first: u64, summary: &Summary, failures: &[Failed]) -> String {
    let (seconds, sum) = (summary.took.as_secs_f64(), summary.operations.iter().sum::<u64>());
    let mut rows = vec![
        vec!["seeds".into(), format!("{} from {first}, {}", summary.seeds, how_many(failures))],
        vec![
            "took".into(),
            format!(
                "{seconds:.1} s, {:.1} seeds a second",
                summary.seeds as f64 / seconds.max(0.001)
            ),
        ],
        vec!["simulated".into(), format!("{:.1} hours", summary.simulated.as_secs_f64() / 3_600.0)],
        vec!["nodes".into(), format!("at most {}", summary.most_nodes)],
        vec!["operations".into(), format!("{sum}, median {} a seed", median(&summary.operations))],
        vec![
            "faults".into(),
            format!(
                "{}, median {} a seed",
                summary.faults.iter().sum::<u64>(),
                median(&summary.faults)
            ),
        ],
    ];
    for (kind, count) in &summary.kinds {
        rows.push(vec![format!("  {}", kind.name()), count.to_string()]);
    }
    let again = format!("{}, {} came to nodes that had them", summary.entries, summary.again);
    rows.push(vec!["entries".into(), again]);
    rows.push(vec!["sessions".into(), format!("{}, {} frames", summary.sessions, summary.frames)]);
    let folders = format!("{} changes by users, {} updates", summary.deeds, summary.updates);
    rows.push(vec!["folders".into(), folders]);
    let failed = failures
        .iter()
        .map(|failed| vec![format!("failed {}", failed.seed), failed.violation.to_string()]);
    rows.extend(failed);
    table(&rows)
}

fn how_many(failures: &[Failed]) -> String {
    match failures.len() {
        0 => "all well".into(),
        failed => format!("{failed} of them failed"),
    }
}

fn object(first: u64, summary: &Summary, failures: &[Failed]) -> Value {
    let kinds: serde_json::Map<String, Value> =
        summary.kinds.iter().map(|(kind, count)| (kind.name().to_owned(), json!(count))).collect();
    json!({
        "first": first,
        "seeds": summary.seeds,
        "seconds": summary.took.as_secs_f64(),
        "simulated_seconds": summary.simulated.as_secs_f64(),
        "most_nodes": summary.most_nodes,
        "operations": summary.operations.iter().sum::<u64>(),
        "median_operations": median(&summary.operations),
        "median_faults": median(&summary.faults),
        "faults": kinds,
        "entries": summary.entries,
        "entries_again": summary.again,
        "sessions": summary.sessions,
        "frames": summary.frames,
        "folder_changes": summary.deeds,
        "folder_updates": summary.updates,
        "failed": failures.iter().map(failed_object).collect::<Vec<Value>>(),
    })
}

fn failed_object(failed: &Failed) -> Value {
    json!({ "seed": failed.seed, "why": failed.violation.to_string() })
}

/// Tells what went wrong as a story that is as short as can be.
fn fail(
    context: &Context,
    failed: &Failed,
    options: &Options,
    args: &SimArgs,
) -> Result<(), Failure> {
    let Failed { seed, violation } = failed;
    let note = format!("seed {seed} failed ({violation}); looking for the shortest way to it");
    if !context.output.json || args.save.is_some() {
        context.output.note(&note);
        let small = shrink(&Plan::generate(*seed, options), violation.check, SHRINKING);
        if let Some(path) = &args.save {
            std::fs::write(path, file::write(&small)?)?;
        }
        if !context.output.json {
            tell_failure(context, &small, &simulate(&small, args.story))?;
        }
    }
    let mut again = format!("anabranch sim --seed {seed} --nodes {}", options.nodes);
    let names: Vec<&str> = options.faults.iter().map(|kind| kind.name()).collect();
    again.push_str(&format!(" --faults {}", names.join(",")));
    Err(Failure::failed(format!("seed {seed}: {violation}"))
        .hint(format!("replay it with '{again} --story'")))
}

/// The plan as a story, what happened if that was asked for, and how it ended.
fn tell_failure(context: &Context, plan: &Plan, outcome: &Outcome) -> Result<(), Failure> {
    let mut lines = context.output.lines();
    lines.text(story(plan).trim_end())?;
    if !outcome.story.is_empty() {
        lines.text(outcome.story.trim_end())?;
    }
    if let Some(last) = &outcome.violation {
        lines.text(&format!("and then: {last}"))?;
    }
    lines.end()
}
