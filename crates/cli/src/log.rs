//! What is said on standard error beside notes and warnings, for people or for programs; and, built with the feature
//! `otlp`, the same spans sent to a collector.

use crate::args::{Arguments, Command, LogFormat};
use crate::failure::Failure;
use crate::output::NOTES;
use tracing_subscriber::filter::{Directive, LevelFilter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt};

/// A part of what hears of spans and events.
type Layer = Box<dyn tracing_subscriber::Layer<Registry> + Send + Sync>;

/// Lasts as long as something may be said; its end hands over what waits to be sent.
pub(crate) struct Log {
    #[cfg(feature = "otlp")]
    _exporter: Option<crate::otlp::Exporter>,
}

impl Log {
    /// Starts listening. `ANABRANCH_LOG` takes the directives of tracing-subscriber's `EnvFilter` and wins over `-v`.
    ///
    /// # Errors
    /// A collector that nothing can be sent to.
    pub(crate) fn start(arguments: &Arguments) -> Result<Self, Failure> {
        let level = match arguments.verbose {
            // What simulated nodes complain of is what is done to them.
            0 if matches!(arguments.command, Command::Sim(_)) => "error",
            0 => "warn",
            1 => "info",
            2 => "debug",
            _ => "trace",
        };
        let text = fmt::layer().with_writer(std::io::stderr);
        let shown: Layer = match format(arguments) {
            LogFormat::Text => text.with_filter(filter(level)).boxed(),
            LogFormat::Json => {
                // What the command itself says is a line of the log as well.
                let notes = Directive::from(LevelFilter::INFO);
                let notes = format!("{NOTES}=info").parse().unwrap_or(notes);
                text.json().with_filter(filter(level).add_directive(notes)).boxed()
            }
        };
        #[cfg_attr(not(feature = "otlp"), expect(unused_mut, reason = "there is one layer"))]
        let mut layers = vec![shown];
        #[cfg(feature = "otlp")]
        let exporter = crate::otlp::Exporter::from_environment();
        #[cfg(feature = "otlp")]
        if let Ok(Some(exporter)) = &exporter {
            // Sessions are worth a span by themselves; more is sent when more is said.
            let level = if arguments.verbose < 2 { "info" } else { level };
            layers.push(exporter.layer().with_filter(filter(level)).boxed());
        }
        tracing_subscriber::registry().with(layers).init();
        Ok(Self {
            #[cfg(feature = "otlp")]
            _exporter: exporter?,
        })
    }
}

fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_from_env("ANABRANCH_LOG").unwrap_or_else(|_| EnvFilter::new(level))
}

/// How lines of the log are to look.
pub(crate) fn format(arguments: &Arguments) -> LogFormat {
    match &arguments.command {
        Command::Serve(args) => args.log_format,
        _ => LogFormat::Text,
    }
}
