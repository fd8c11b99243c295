//! `login` and `logout`: credentials for registries.

use std::io::Read;

use berth_docker::auth::{AuthConfig, AuthResponse};
use berth_docker_client::Request;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Cli, print, stderr_is_terminal, stdin_is_terminal, warn};
use crate::command::{Arity, Command};
use crate::credentials::{self, HUB};
use crate::failure::{Failure, Outcome};
use crate::flags::{Flag, Parsed};

pub const LOGIN: Command = Command::leaf("login", "[SERVER]", "Authenticate to a registry", login)
    .long("Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.")
    .flags(&[
        Flag::text("password", "The password, or a token in its place").short('p'),
        Flag::switch("password-stdin", "Read the password from stdin"),
        Flag::text("username", "The user's name").short('u'),
    ])
    .arity(Arity::AtMost(1));

pub const LOGOUT: Command = Command::leaf("logout", "[SERVER]", "Log out from a registry", logout)
    .long("Log out from a registry.\nDefaults to Docker Hub if no server is specified.")
    .arity(Arity::AtMost(1));

fn login(cli: &Cli, flags: &Parsed) -> Outcome {
    let user = flags.text("username");
    let given = password(flags)?;
    let key = credentials::key(flags.arg(0));
    cli.block_on(async {
        let mut known_user = String::new();
        if user.is_empty() && given.is_empty() {
            // Credentials that cannot be read are as good as none: others are asked for.
            let known = credentials::get(cli.config(), &key).ok().flatten();
            if let Some(known) = known.filter(is_complete) {
                known_user.clone_from(&known.username);
                if let Some(status) = try_known(cli, known).await? {
                    return finish(&status);
                }
            }
        }
        let asked = ask(user, &known_user, given.clone()).await?;
        let Some((username, password)) = asked else {
            return Ok(0);
        };
        let auth = AuthConfig {
            username,
            password,
            serveraddress: key.clone(),
            ..AuthConfig::default()
        };
        finish(&authenticate(cli, auth).await?)
    })
}

fn logout(cli: &Cli, flags: &Parsed) -> Outcome {
    let given = flags.arg(0);
    let key = credentials::key(given);
    let mut keys = vec![key.clone()];
    if key != HUB {
        // Older clients kept them under addresses.
        keys.extend([format!("http://{key}"), format!("https://{key}")]);
        if given != key {
            keys.insert(0, given.to_owned());
        }
    }
    print(format!("Removing login credentials for {key}\n"))?;
    if let Err(failures) = credentials::erase(cli, &keys) {
        warn("WARNING: could not erase credentials:");
        failures.iter().for_each(warn);
    }
    Ok(0)
}

fn finish(status: &str) -> Outcome {
    if !status.is_empty() {
        print(format!("{status}\n"))?;
    }
    Ok(0)
}

/// The password of the flags.
fn password(flags: &Parsed) -> Result<String, Failure> {
    let password = flags.text("password");
    if !flags.on("password-stdin") {
        if !password.is_empty() {
            warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        }
        return Ok(password.to_owned());
    }
    if flags.changed("password") {
        return Err(Failure::new(
            "conflicting options: cannot specify both --password and --password-stdin",
        ));
    }
    if flags.text("username").is_empty() {
        return Err(Failure::new(
            "the --password-stdin option requires --username to be set",
        ));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

fn is_complete(auth: &AuthConfig) -> bool {
    !auth.username.is_empty() && !auth.password.is_empty()
}

/// Tries what is known already; `None` if the registry does not take it (any more).
async fn try_known(cli: &Cli, known: AuthConfig) -> Result<Option<String>, Failure> {
    let hint = "To login with a different account, run 'docker logout' followed by 'docker login'";
    let hint = hint.replace("docker", &cli.program);
    warn(format!(
        "Authenticating with existing credentials... [Username: {}]\n\n{}\n\n",
        known.username,
        match stderr_is_terminal() {
            true => format!(
                "\x1b[1m\x1b[106m\x1b[30mi\x1b[0m\x1b[0m \x1b[96mInfo → \x1b[0m\x1b[0m\x1b[3m{hint}\x1b[0m"
            ),
            false => format!(" Info -> {hint}"),
        }
    ));
    match authenticate(cli, known).await {
        Ok(status) => Ok(Some(status)),
        Err(failure) if failure.unreachable => Err(failure),
        Err(failure) => {
            warn(format!("Login did not succeed, error: {}", failure.message));
            Ok(None)
        }
    }
}

/// Has the daemon ask the registry, and keeps what the registry took.
async fn authenticate(cli: &Cli, mut auth: AuthConfig) -> Result<String, Failure> {
    let request = Request::post("/auth").json(&auth)?;
    let answer: AuthResponse = cli.client()?.call(request).await?;
    if !answer.identity_token.is_empty() {
        auth.password.clear();
        auth.identitytoken = answer.identity_token;
    }
    credentials::store(cli, &auth)?;
    Ok(answer.status)
}

/// Asks for what is missing; `None` when the user gives up by Ctrl-C.
async fn ask(
    user: &str,
    known_user: &str,
    password: String,
) -> Result<Option<(String, String)>, Failure> {
    if (user.is_empty() || password.is_empty()) && !stdin_is_terminal() {
        return Err(Failure::new(
            "Error: Cannot perform an interactive login from a non TTY device",
        ));
    }
    let user = match (user, known_user) {
        ("", known) => {
            let question = match known {
                "" => "Username: ".to_owned(),
                known => format!("Username ({known}): "),
            };
            match line(&question).await? {
                None => return Ok(None),
                Some(answer) if answer.trim().is_empty() => known.to_owned(),
                Some(answer) => answer.trim().to_owned(),
            }
        }
        (user, _) => user.to_owned(),
    };
    if user.is_empty() {
        return Err(Failure::new("Error: Non-null Username Required"));
    }
    if !password.is_empty() {
        return Ok(Some((user, password)));
    }
    let silence = Silence::begin()?;
    let answer = line("Password: ").await;
    drop(silence);
    print("\n")?;
    match answer? {
        None => Ok(None),
        Some(password) if password.is_empty() => Err(Failure::new("Error: Password Required")),
        Some(password) => Ok(Some((user, password))),
    }
}

/// A line from the terminal; `None` after Ctrl-C.
async fn line(question: &str) -> Result<Option<String>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    print(question)?;
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line)
    });
    tokio::select! {
        read = read => {
            let line = read.map_err(std::io::Error::other)??;
            Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()))
        }
        _ = interrupt.recv() => Ok(None),
    }
}

/// The terminal does not show what is typed, as long as this lives.
struct Silence(Termios);

impl Silence {
    fn begin() -> Result<Self, Failure> {
        let before = tcgetattr(std::io::stdin()).map_err(std::io::Error::from)?;
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO;
        tcsetattr(std::io::stdin(), OptionalActions::Now, &silent).map_err(std::io::Error::from)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // Nobody can be told; the shell sets the terminal as it likes it anyway.
        tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0).ok();
    }
}
