//! What every command is given: the environment, the configuration, the way to the daemon.

use std::cell::OnceCell;
use std::future::Future;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use berth_docker_client::host::InvalidHost;
use berth_docker_client::{Client, Host, Options, Tls};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::context;
use crate::failure::Failure;
use crate::flags::Parsed;
use crate::help;

/// How the program was called. Only the binary looks at the process's surroundings.
pub struct Invocation {
    /// The name to speak of in help and errors: `docker` or `berth`.
    pub program: String,
    /// Without the program's name.
    pub args: Vec<String>,
    pub environment: Environment,
    /// The daemon of those who name none.
    pub default_host: String,
    pub build: Build,
    /// Commands that the binary itself has, for the help.
    pub extra_commands: &'static [(&'static str, &'static str)],
}

/// What `version` tells about this program.
#[derive(Debug, Clone, Default)]
pub struct Build {
    pub version: String,
    pub commit: String,
    /// RFC 3339; empty is not shown.
    pub time: String,
}

/// Looks up a variable.
pub type Environment = Box<dyn Fn(&str) -> Option<String>>;

/// Where docker's clients look for a daemon that is to speak TLS and has no name.
const DEFAULT_TLS_HOST: &str = "tcp://localhost:2376";

/// What a shell reports for a process that SIGINT, or SIGTERM, ended.
const INTERRUPTED: u8 = 128 + 2;
const TERMINATED: u8 = 128 + 15;

/// The default context's name.
pub const DEFAULT_CONTEXT: &str = "default";

pub struct Cli {
    pub program: String,
    pub environment: Environment,
    pub build: Build,
    default_host: String,
    global: Parsed,
    config: OnceCell<Config>,
    runtime: OnceCell<Runtime>,
    client: OnceCell<Client>,
}

impl Cli {
    pub fn new(invocation: Invocation, global: Parsed) -> Self {
        Self {
            program: invocation.program,
            environment: invocation.environment,
            build: invocation.build,
            default_host: invocation.default_host,
            global,
            config: OnceCell::new(),
            runtime: OnceCell::new(),
            client: OnceCell::new(),
        }
    }

    /// A variable that is set to something.
    pub fn env(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    /// Docker's own directory: contexts and `config.json`.
    pub fn config_dir(&self) -> PathBuf {
        if let Some(dir) = self.global.given("config") {
            return dir.into();
        }
        match self.env("DOCKER_CONFIG") {
            Some(dir) => dir.into(),
            None => {
                PathBuf::from(self.env("HOME").unwrap_or_else(|| "/root".into())).join(".docker")
            }
        }
    }

    /// `config.json`, read when somebody first needs it.
    pub fn config(&self) -> &Config {
        self.config.get_or_init(|| {
            let path = self.config_dir().join("config.json");
            Config::load(&path).unwrap_or_else(|warning| {
                eprintln!("WARNING: {warning}");
                Config::default()
            })
        })
    }

    /// The name of the context in force.
    pub fn context_name(&self) -> String {
        if let Some(name) = self.global.given("context") {
            return name.to_owned();
        }
        if self.global.changed("host") || self.env("DOCKER_HOST").is_some() {
            return DEFAULT_CONTEXT.to_owned();
        }
        self.env("DOCKER_CONTEXT")
            .or_else(|| self.config().current_context())
            .unwrap_or_else(|| DEFAULT_CONTEXT.to_owned())
    }

    /// The daemon's address in the default context.
    pub fn default_context_host(&self) -> String {
        self.chosen_host()
            .unwrap_or_else(|| self.default_host.clone())
    }

    fn chosen_host(&self) -> Option<String> {
        let given = self.global.given("host").map(str::to_owned);
        given.or_else(|| self.env("DOCKER_HOST"))
    }

    /// Whether nobody chose a daemon, so that ours is meant.
    pub fn is_default_host(&self, host: &str) -> bool {
        host == self.default_host
    }

    pub fn contexts(&self) -> context::Store {
        context::Store::new(self.config_dir().join("contexts"))
    }

    /// The way to the daemon; nothing is connected yet.
    pub fn client(&self) -> Result<&Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::new(self.client_options()?);
        Ok(self.client.get_or_init(|| client))
    }

    fn client_options(&self) -> Result<Options, Failure> {
        if self.global.changed("host") && self.global.changed("context") {
            return Err(Failure::new(
                "conflicting options: cannot specify both --host and --context",
            ));
        }
        let name = self.context_name();
        let (host, tls) = if name == DEFAULT_CONTEXT {
            let tls = self.flag_tls()?;
            let chosen = self.chosen_host();
            let host = chosen.unwrap_or_else(|| match tls {
                Some(_) => DEFAULT_TLS_HOST.to_owned(),
                None => self.default_host.clone(),
            });
            (host, tls)
        } else {
            let context = self.contexts().load(&name).map_err(unresolved)?;
            (context.host(), self.contexts().tls(&context))
        };
        let host = Host::parse(&host, tls.is_some()).map_err(|error| match error {
            InvalidHost::Ssh(_) => Failure::new(format!("Failed to initialize: {error}")),
            InvalidHost::Address(_) => unresolved(Failure::new(error.to_string())),
        })?;
        Ok(Options {
            tls: tls.filter(|_| matches!(host, Host::Tcp { .. })),
            host,
            version: self.env("DOCKER_API_VERSION"),
            headers: self.config().http_headers(),
            user_agent: format!("Docker-Client/{} (linux)", self.build.version),
        })
    }

    /// TLS as docker's flags and variables ask for it. `--tlsverify=false` asks for it too.
    fn flag_tls(&self) -> Result<Option<Tls>, Failure> {
        let chosen = |flag: &str, variable: &str| match self.global.changed(flag) {
            true => self.global.on(flag),
            false => self.env(variable).is_some(),
        };
        let verify = chosen("tlsverify", "DOCKER_TLS_VERIFY");
        if !verify && !self.global.changed("tlsverify") && !chosen("tls", "DOCKER_TLS") {
            return Ok(None);
        }
        let dir = match self.env("DOCKER_CERT_PATH") {
            Some(dir) => PathBuf::from(dir),
            None => self.config_dir(),
        };
        let file = |flag: &str, name: &str| match self.global.given(flag) {
            Some(path) => PathBuf::from(path),
            None => dir.join(name),
        };
        let readable = |path: PathBuf| match std::fs::File::open(&path) {
            Ok(_) => Ok(Some(path)),
            Err(error) => Err(unresolved(Failure::new(format!(
                "open {}: {}",
                path.display(),
                crate::create::os_words(&error)
            )))),
        };
        // Of ourselves we need not tell anything; whom to believe has to be said.
        let optional = |flag: &str, name: &str| match file(flag, name) {
            path if self.global.changed(flag) || path.exists() => readable(path),
            _ => Ok(None),
        };
        Ok(Some(Tls {
            ca: readable(file("tlscacert", "ca.pem"))?,
            cert: optional("tlscert", "cert.pem")?,
            key: optional("tlskey", "key.pem")?,
            skip_verify: !verify,
        }))
    }

    /// Runs something that waits, on this thread.
    pub fn block_on<T>(
        &self,
        future: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let runtime = match self.runtime.get() {
            Some(runtime) => runtime,
            None => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                self.runtime.get_or_init(|| runtime)
            }
        };
        runtime.block_on(future)
    }

    /// The same for what waits as long as the user likes: SIGINT and SIGTERM end it, with the exit
    /// codes of docker's client and no words, also where SIGINT was ignored before.
    pub fn block_on_until_signal<T>(
        &self,
        future: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                result = future => result,
                _ = interrupt.recv() => Err(Failure::silent(INTERRUPTED)),
                _ = terminate.recv() => Err(Failure::silent(TERMINATED)),
            }
        })
    }

    /// Leaves without waiting for a thread that still reads from the terminal.
    pub fn finish(self) {
        drop(self.client);
        if let Some(runtime) = self.runtime.into_inner() {
            runtime.shutdown_background();
        }
    }
}

/// Nobody can be asked when it is not known who.
fn unresolved(failure: Failure) -> Failure {
    Failure::new(format!(
        "Failed to initialize: unable to resolve docker endpoint: {}",
        failure.message
    ))
}

/// Writes to stdout; a reader that went away ends the command quietly.
pub fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_ref())?;
    out.flush()?;
    Ok(())
}

/// Writes a line to stderr, where nobody can be told that it failed.
pub fn warn(text: impl AsRef<str>) {
    let line = format!("{}\n", text.as_ref());
    std::io::stderr().write_all(line.as_bytes()).ok();
}

/// The columns of the terminal.
pub fn width() -> usize {
    rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .unwrap_or(help::DEFAULT_WIDTH)
}

pub fn stdin_is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

pub fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}
