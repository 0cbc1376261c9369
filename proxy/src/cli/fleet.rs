//! `cmiot-proxy fleet`: the schema of a fleet's database, the nodes of the fleet, the release of a node's number, and the
//! copies of the nodes' audits.

mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use cmiot_proxy::clock::Clock;
use cmiot_proxy::config::fleet::{Fleet, Secret};
use cmiot_proxy::config::{Config, read_secret};
use cmiot_proxy::store::fleet::migrate;
use cmiot_proxy::store::fleet::operate::{AuditCopy, Life, OperateError, Overview, Released, Session};
use serde_json::json;

use super::table;

/// Prepare the database of a fleet, show its nodes, free the number of a node, verify the copies of the audits.
///
/// The commands use the settings of [fleet] in the configuration; the proxy need not run.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy fleet status --config cmiot-proxy.toml")]
pub(super) struct FleetCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Migrate(Migrate),
    Status(Status),
    ReleaseNode(ReleaseNode),
    Verify(verify::Verify),
}

/// Create the schema, or apply its missing steps, and give the role of the nodes its rights.
///
/// Nodes never do this themselves. It may run while nodes run: a step that running nodes cannot bear is not released before
/// they can. The role that connects owns the schema. If it may not create it, the SQL is printed, for psql under a role that
/// may; exit code 1.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  cmiot-proxy fleet migrate --config cmiot-proxy.toml --user cmiot_owner --password-file owner.password
  cmiot-proxy fleet migrate --config cmiot-proxy.toml --print | psql cmiot")]
struct Migrate {
    #[command(flatten)]
    at: Database,
    /// Print the SQL of all steps instead of connecting
    #[arg(long, conflicts_with_all = ["user", "password_file"])]
    print: bool,
}

/// The database of a fleet, and the role of an operator.
#[derive(clap::Args)]
struct Database {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Role to connect as [default: [fleet] user]
    #[arg(long, value_name = "ROLE")]
    user: Option<String>,
    /// File with the password of that role
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
}

impl Database {
    async fn connect(&self, settings: &Fleet) -> anyhow::Result<Session> {
        let password = self.password_file.as_deref().map(read_secret).transpose()?.map(Secret::from);
        let role = self.user.as_deref().map(|user| (user, password));
        Ok(Session::connect(settings, role).await?)
    }
}

/// Show the nodes of the fleet: number, store, life, heartbeats, the last purge that each has applied, the copy of its audit.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy fleet status --config cmiot-proxy.toml --format json")]
struct Status {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Form of the output
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Tables as wide as their content
    #[arg(long)]
    wide: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// Free the number of a node that was taken out of service, so that another store may have it.
///
/// The number of a node that runs is not freed. Do this only if its store will not be used again: two stores with one
/// number would send the carrier the same transids.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  cmiot-proxy fleet release-node 3 --config cmiot-proxy.toml")]
struct ReleaseNode {
    /// Number of the node
    #[arg(value_parser = clap::value_parser!(i16).range(0..=99))]
    node: i16,
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

impl FleetCommand {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = super::runtime()?;
        match self.command {
            Command::Migrate(migrate) => runtime.block_on(migrate.run()),
            Command::Status(status) => runtime.block_on(status.run()),
            Command::ReleaseNode(release) => runtime.block_on(release.run()),
            Command::Verify(verify) => runtime.block_on(verify.run()),
        }
    }
}

impl Migrate {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let settings = settings(&self.at.config)?;
        if self.print {
            print_sql(&settings.user, 0)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut session = self.at.connect(&settings).await?;
        match session.migrate(&settings.user).await {
            Ok((before, after)) if before == after => {
                say!("the schema has version {after} already", "数据库模式已是版本 {after}");
                Ok(ExitCode::SUCCESS)
            }
            Ok((before, after)) => {
                say!(
                    "the schema has version {after} (was {before})",
                    "数据库模式现为版本 {after}（原为 {before}）"
                );
                Ok(ExitCode::SUCCESS)
            }
            Err(OperateError::Rights(reason)) => {
                super::warn(&said!(
                    "this role may not change the schema ({reason}): run the printed SQL with psql under a role that may",
                    "该角色无权修改数据库模式（{reason}）：请用有权限的角色在 psql 中执行打印出的 SQL"
                ));
                print_sql(&settings.user, session.version().await?)?;
                Ok(ExitCode::FAILURE)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Status {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let overview = Session::connect(&settings(&self.config)?, None).await?.overview().await?;
        match self.format {
            Format::Json => out!("{:#}", to_json(&overview)),
            Format::Table => print_table(&overview, self.wide)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl ReleaseNode {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let node = self.node;
        match Session::connect(&settings(&self.config)?, None).await?.release(node).await? {
            Released::Free => {
                say!("the number {node} is free", "节点编号 {node} 已释放");
                Ok(ExitCode::SUCCESS)
            }
            Released::Unknown => {
                bail!(said!("no store has the number {node}", "没有存储使用节点编号 {node}"))
            }
            Released::Alive => bail!(said!(
                "node {node} runs: stop it first; its number is not freed",
                "节点 {node} 正在运行：请先停止它；编号未释放"
            )),
        }
    }
}

/// Connects to the database of a fleet, and prints its version, that of its schema, its clock, and the rights that the role
/// lacks. Returns whether a node can work with it.
pub(super) async fn check(settings: &Fleet) -> anyhow::Result<bool> {
    let (session, overview) = match ask(settings).await {
        Ok(asked) => asked,
        Err(error) => {
            say!("fleet: {error}", "集群：{error}");
            return Ok(false);
        }
    };
    let ahead = session.clock_ahead(Clock::system().now().as_micros() as f64 / 1e6).await?;
    say!(
        "fleet: PostgreSQL {server}, schema {version}, clock {ahead:+.3} s from this machine's",
        "集群：PostgreSQL {server}，数据库模式 {version}，时钟与本机相差 {ahead:+.3} 秒",
        server = overview.server,
        version = overview.version
    );
    let needed = migrate::version();
    let fits = overview.version >= needed && overview.oldest <= needed;
    if !fits {
        say!(
            "fleet: this executable needs schema {needed}: run `cmiot-proxy fleet migrate`, or upgrade the executable",
            "集群：本程序需要数据库模式 {needed}：请运行 `cmiot-proxy fleet migrate`，或升级本程序"
        );
    }
    let missing = session.missing_rights().await?;
    if !missing.is_empty() {
        say!(
            "fleet: the role lacks rights: {rights}; `cmiot-proxy fleet migrate` grants them",
            "集群：该角色缺少权限：{rights}；`cmiot-proxy fleet migrate` 会授予",
            rights = missing.join(", ")
        );
    }
    let is_near = ahead.abs() <= 1.0;
    if !is_near {
        say!(
            "fleet: the clocks differ by more than 1 s: correct both by NTP",
            "集群：两个时钟相差超过 1 秒：请用 NTP 校正"
        );
    }
    Ok(fits && missing.is_empty() && is_near)
}

async fn ask(settings: &Fleet) -> Result<(Session, Overview), OperateError> {
    let session = Session::connect(settings, None).await?;
    let overview = session.overview().await?;
    Ok((session, overview))
}

/// The settings of `[fleet]` in a configuration file.
fn settings(path: &Path) -> anyhow::Result<Fleet> {
    let (config, _) = Config::load(path)?;
    match config.fleet {
        Some(fleet) => Ok(fleet),
        None => bail!(said!(
            "{path} has no [fleet]: docs/fleet.md describes it",
            "{path} 中没有 [fleet]：见 docs/fleet.md",
            path = super::shown_path(path)
        )),
    }
}

/// Prints the steps after a version as SQL for psql, in one transaction.
fn print_sql(node_role: &str, version: i32) -> anyhow::Result<()> {
    let role = node_role.replace('\'', "''");
    out!("BEGIN;\n{}SELECT fleet.grant_node('{role}');\nCOMMIT;", migrate::sql_after(version));
    Ok(())
}

fn to_json(overview: &Overview) -> serde_json::Value {
    let nodes = overview.nodes.iter().map(|node| {
        json!({
            "node": node.number,
            "store": data_encoding::HEXLOWER.encode(&node.store),
            "alive": node.life.as_ref().is_some_and(|life| life.is_alive),
            "life": node.life.as_ref().map(|life| life.id),
            "seconds": node.life.as_ref().map(|life| life.seconds),
            "heartbeats": node.life.as_ref().map(|life| life.beats),
            "purge": node.life.as_ref().map(|life| life.applied),
            "audit": node.copy.as_ref().map(|copy| json!({
                "row": copy.last,
                "behind": copy.behind,
                "seconds": copy.seconds,
            })),
        })
    });
    json!({
        "fleet": overview.fleet,
        "schema": overview.version,
        "oldest": overview.oldest,
        "server": overview.server,
        "purge": overview.generation,
        "nodes": nodes.collect::<Vec<_>>(),
    })
}

fn print_table(overview: &Overview, wide: bool) -> anyhow::Result<()> {
    say!(
        "fleet {fleet}, schema {version}, PostgreSQL {server}, last purge {generation}",
        "集群 {fleet}，数据库模式 {version}，PostgreSQL {server}，最后一次清除 {generation}",
        fleet = overview.fleet,
        version = overview.version,
        server = overview.server,
        generation = overview.generation
    );
    let mut nodes = table::new(wide);
    nodes.set_header([
        said!("node", "节点"),
        said!("state", "状态"),
        said!("life", "生命期"),
        said!("seconds", "秒"),
        said!("heartbeats", "心跳"),
        said!("purge", "清除"),
        said!("audit copied", "审计复制"),
        said!("store", "存储"),
    ]);
    table::wrap_only(&mut nodes, &[]);
    for node in &overview.nodes {
        let number = |read: fn(&Life) -> i64| {
            node.life.as_ref().map_or_else(String::new, |life| read(life).to_string())
        };
        let state = match &node.life {
            None => said!("never started", "从未启动"),
            Some(life) if life.is_alive => said!("alive", "在线"),
            Some(life) if life.gone => said!("ended", "已结束"),
            Some(_) => said!("silent", "无心跳"),
        };
        nodes.add_row([
            node.number.to_string(),
            state,
            number(|life| life.id),
            number(|life| life.seconds),
            number(|life| life.beats),
            number(|life| life.applied),
            node.copy.as_ref().map_or_else(String::new, shown_copy),
            short(&node.store),
        ]);
    }
    out!("{nodes}");
    Ok(())
}

/// The state of a copy: its row, and what the node had after it.
fn shown_copy(copy: &AuditCopy) -> String {
    let AuditCopy { last, behind, .. } = copy;
    match behind {
        0 => said!("row {last}", "第 {last} 行"),
        _ => said!("row {last}, {behind} behind", "第 {last} 行，尚缺 {behind} 行"),
    }
}

/// The first bytes of a public key.
fn short(key: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&key[..key.len().min(8)])
}
