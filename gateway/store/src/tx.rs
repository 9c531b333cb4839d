// SPDX-License-Identifier: Apache-2.0
//! Opening a database, and running one SQL text on either of the two.

use crate::Error;
use portcullis_domain::{ProposalId, micros};
use sqlx::{
    PgPool, Postgres, Sqlite, SqlitePool, Transaction,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{
    cell::Cell,
    path::Path,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

static SQLITE: Migrator = sqlx::migrate!("../../migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("../../migrations/postgres");

const BUSY: Duration = Duration::from_secs(5);
/// How long to wait before SQLite is asked again.
const BUSY_AGAIN: Duration = Duration::from_millis(20);
/// Another node may be in the middle of a long migration.
const BUSY_MIGRATING: Duration = Duration::from_mins(1);

/// The database. A cheap handle: clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) db: Db,
    /// How often this process itself moved the epoch.
    pub(crate) moves: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
pub(crate) enum Db {
    /// Writers queue for one connection: SQLite has one writer at a time, and a queue is fairer than its busy loop.
    Sqlite { read: SqlitePool, write: SqlitePool },
    /// One pool.
    Postgres(PgPool),
}

/// One transaction on either database; dropped without `commit` it never happened.
pub(crate) struct Tx {
    pub(crate) on: On,
    moving: Moving,
    /// Whether it has its place in the order of changes of rights.
    in_order: bool,
}

/// The transaction itself.
pub(crate) enum On {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// Counts a move of the epoch when it is dropped: after the commit, so that nobody who read the rows of before takes the
/// number of after, and also when whoever waited for the commit has gone.
struct Moving {
    moves: Arc<AtomicU64>,
    moved: Moved,
}

/// Whether a transaction moves the epoch.
#[derive(PartialEq, Eq)]
enum Moved {
    No,
    Yes,
}

impl Drop for Moving {
    fn drop(&mut self) {
        if self.moved == Moved::Yes {
            self.moves.fetch_add(1, Ordering::Release);
        }
    }
}

/// Runs a statement inside a transaction and gives the number of rows that it changed.
macro_rules! execute {
    ($tx:expr, $sql:expr $(, $arg:expr)* $(,)?) => {
        match &mut $tx.on {
            crate::tx::On::Sqlite(t) => {
                sqlx::query($sql)$(.bind($arg))*.execute(&mut **t).await.map(|r| r.rows_affected())
            }
            crate::tx::On::Postgres(t) => {
                sqlx::query($sql)$(.bind($arg))*.execute(&mut **t).await.map(|r| r.rows_affected())
            }
        }
        .map_err(crate::Error::sql)
    };
}

/// The rows that a statement inside a transaction gives.
macro_rules! fetch {
    ($tx:expr, $row:ty, $sql:expr $(, $arg:expr)* $(,)?) => {
        match &mut $tx.on {
            crate::tx::On::Sqlite(t) => sqlx::query_as::<_, $row>($sql)$(.bind($arg))*.fetch_all(&mut **t).await,
            crate::tx::On::Postgres(t) => sqlx::query_as::<_, $row>($sql)$(.bind($arg))*.fetch_all(&mut **t).await,
        }
        .map_err(crate::Error::sql)
    };
}

/// The rows of a query that changes nothing.
macro_rules! read {
    ($store:expr, $row:ty, $sql:expr $(, $arg:expr)* $(,)?) => {
        match &$store.db {
            crate::tx::Db::Sqlite { read, .. } => sqlx::query_as::<_, $row>($sql)$(.bind($arg))*.fetch_all(read).await,
            crate::tx::Db::Postgres(pool) => sqlx::query_as::<_, $row>($sql)$(.bind($arg))*.fetch_all(pool).await,
        }
        .map_err(crate::Error::sql)
    };
}

pub(crate) use {execute, fetch, read};

/// Reads a column that was written by this program; anything else is a corrupt row.
pub(crate) fn parse<T: FromStr>(table: &'static str, column: &'static str, text: &str) -> Result<T, Error>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e| Error::corrupt(table, column, e))
}

/// The word that serde gives a variant without fields.
pub(crate) fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Reads what [`word`] wrote.
pub(crate) fn from_word<T: serde::de::DeserializeOwned>(
    table: &'static str,
    column: &'static str,
    text: String,
) -> Result<T, Error> {
    serde_json::from_value(serde_json::Value::String(text)).map_err(|e| Error::corrupt(table, column, e))
}

impl Tx {
    pub(crate) async fn commit(self) -> Result<(), Error> {
        let Self { on, moving, .. } = self;
        let done = match on {
            On::Sqlite(t) => t.commit().await,
            On::Postgres(t) => t.commit().await,
        };
        drop(moving);
        done.map_err(Error::sql)
    }

    /// The same for a change of what somebody holds: a grant, or who is in a group. It has a place in the order of such
    /// changes, whoever makes it: who looked before it, in a turn of their own, looks again. The turn comes before the
    /// epoch, as in [`Tx::bump`], so that two transactions never wait for each other.
    pub(crate) async fn bump_rights(&mut self) -> Result<(), Error> {
        let looked = TURN.try_with(|turn| turn.get().is_some()).unwrap_or(false);
        if !looked && !self.in_order {
            execute!(self, "update turns set number = number + 1 where name = 'rights'")?;
            self.in_order = true;
        }
        self.bump().await
    }

    /// Tells every node to read again who may do what. The first time inside [`Store::in_turn`] it also takes that
    /// turn, which fails when somebody else did since it was read.
    pub(crate) async fn bump(&mut self) -> Result<(), Error> {
        if let Ok(Some(turn)) = TURN.try_with(Cell::take) {
            let taken =
                execute!(self, "update turns set number = number + 1 where name = 'rights' and number = $1", turn)?;
            if taken == 0 {
                return Err(Error::Overtaken);
            }
            self.in_order = true;
        }
        if let Ok(Some(Deed { id, end })) = DEED.try_with(Cell::take) {
            let ended = execute!(
                self,
                "update proposals set state = 'done', decided_at = $2, decided_by = $3, decided_name = $4, said = $5 \
                 where id = $1 and state = 'waiting' and expires_at > $2",
                id.to_string(),
                micros(end.at),
                end.by.map(|u| u.to_string()),
                &end.by_name,
                &end.said
            )?;
            if ended == 0 {
                return Err(Error::NotFound("a proposal that waits"));
            }
        }
        self.moving.moved = Moved::Yes;
        execute!(self, "update epoch set value = value + 1 where only_row = 1").map(drop)
    }
}

/// A point in the order in which rights were changed, over all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn(i64);

tokio::task_local! {
    /// The turn that the next change of rights in this task takes.
    static TURN: Cell<Option<i64>>;
    /// The proposal that the next change of rights in this task carries out.
    static DEED: Cell<Option<Deed>>;
}

/// A proposal that a change of rights carries out, and how it ends by that.
pub(crate) struct Deed {
    pub(crate) id: ProposalId,
    pub(crate) end: crate::Ended,
}

impl Deed {
    /// Ends the proposal in the first transaction of a change that moves the epoch.
    pub(crate) async fn scope<T>(self, change: impl Future<Output = T>) -> T {
        DEED.scope(Cell::new(Some(self)), change).await
    }
}

impl Store {
    /// Whose turn it is to change rights. Read it before looking at what others hold, then write inside
    /// [`Store::in_turn`]: the two together are as if nobody else had written in between.
    pub async fn turn(&self) -> Result<Turn, Error> {
        let rows = read!(self, (i64,), "select number from turns where name = 'rights'")?;
        rows.first().map(|row| Turn(row.0)).ok_or(Error::NotFound("the turn of changes"))
    }

    /// Does a change of rights that counts only if nobody took a turn since `turn` was read: its first transaction that
    /// moves the epoch fails with [`Error::Overtaken`] otherwise, and changes nothing.
    pub async fn in_turn<T>(&self, turn: Turn, change: impl Future<Output = T>) -> T {
        TURN.scope(Cell::new(Some(turn.0)), change).await
    }

    /// Opens `sqlite:///absolute/path.db` or `postgres://…` and runs the migrations that are missing.
    pub async fn open(url: &str) -> Result<Self, Error> {
        let store = if let Some(path) = url.strip_prefix("sqlite://") {
            Self::open_sqlite(Path::new(path)).await?
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Self::open_postgres(url).await?
        } else {
            // Not the address itself: it may hold a password.
            let scheme = url.split_once("://").map_or("no scheme", |(scheme, _)| scheme);
            return Err(Error::Address(format!("the database address begins with {scheme:?}")));
        };
        Ok(store)
    }

    /// Closes every connection and waits for those in use.
    pub async fn close(&self) {
        match &self.db {
            Db::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Db::Postgres(pool) => pool.close().await,
        }
    }

    /// Asks the database for an answer.
    pub async fn ping(&self) -> Result<(), Error> {
        read!(self, (i64,), "select value from epoch where only_row = 1").map(drop)
    }

    /// Begins a transaction that may write. On SQLite it takes the write lock at once, so that what is read
    /// inside it cannot change before it commits.
    pub(crate) async fn begin(&self) -> Result<Tx, Error> {
        let on = match &self.db {
            Db::Sqlite { write, .. } => write.begin_with("begin immediate").await.map(On::Sqlite),
            Db::Postgres(pool) => pool.begin().await.map(On::Postgres),
        };
        let moving = Moving { moves: Arc::clone(&self.moves), moved: Moved::No };
        Ok(Tx { on: on.map_err(Error::sql)?, moving, in_order: false })
    }

    async fn open_sqlite(path: &Path) -> Result<Self, Error> {
        if !path.is_absolute() {
            return Err(Error::Address(format!("the database path {} is not absolute", path.display())));
        }
        make_private(path).map_err(|e| Error::Unavailable(Box::new(e)))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY);

        let migrating = SqlitePoolOptions::new().max_connections(1).acquire_timeout(BUSY_MIGRATING);
        let migrating = connect(migrating, options.clone().busy_timeout(BUSY_MIGRATING)).await?;
        let migrated = async {
            let mut tx = migrating.begin_with("begin immediate").await.map_err(MigrateError::Execute)?;
            SQLITE.run_direct(None, &mut *tx, false).await?;
            tx.commit().await.map_err(MigrateError::Execute)
        }
        .await;
        let found = match &migrated {
            Err(_) => sqlx::query_scalar::<_, i64>(NEWEST).fetch_optional(&migrating).await.ok().flatten(),
            Ok(()) => None,
        };
        migrating.close().await;
        migrated.map_err(|e| refuse(e, found, &SQLITE))?;

        let pool = || SqlitePoolOptions::new().acquire_timeout(BUSY).idle_timeout(None).max_lifetime(None);
        let write = connect(pool().max_connections(1), options.clone()).await?;
        let read = connect(pool().max_connections(4), options.read_only(true)).await?;
        Ok(Self { db: Db::Sqlite { read, write }, moves: Arc::default() })
    }

    async fn open_postgres(url: &str) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|_| Error::Address("the PostgreSQL address cannot be read".to_owned()))?
            .application_name("portcullis");
        let pool = PgPoolOptions::new().max_connections(8).acquire_timeout(BUSY).test_before_acquire(true);
        let pool = pool.connect_with(options).await.map_err(Error::sql)?;
        let migrated = async {
            let mut connection = pool.acquire().await.map_err(MigrateError::Execute)?;
            let migrated = POSTGRES.run_direct(None, &mut *connection, false).await;
            if migrated.is_err() {
                // The migrator's advisory lock belongs to this connection: it must not go back into the pool.
                drop(connection.detach());
            }
            migrated
        }
        .await;
        if let Err(e) = migrated {
            let found = sqlx::query_scalar::<_, i64>(NEWEST).fetch_optional(&pool).await.ok().flatten();
            pool.close().await;
            return Err(refuse(e, found, &POSTGRES));
        }
        Ok(Self { db: Db::Postgres(pool), moves: Arc::default() })
    }
}

/// Opens a pool's first connection. While another process makes the file a WAL one, or takes its WAL away as the last to
/// leave, SQLite says that it is busy at once, whatever the timeout for locks is: that is waited out here.
async fn connect(pool: SqlitePoolOptions, options: SqliteConnectOptions) -> Result<SqlitePool, Error> {
    let begun = tokio::time::Instant::now();
    loop {
        match pool.clone().connect_with(options.clone()).await {
            Ok(pool) => return Ok(pool),
            Err(error) if is_busy(&error) && begun.elapsed() < BUSY => tokio::time::sleep(BUSY_AGAIN).await,
            Err(error) => return Err(Error::sql(error)),
        }
    }
}

/// Whether SQLite says SQLITE_BUSY, 5 in the low byte of its extended codes (its documentation, "Result and Error Codes").
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).and_then(|c| c.parse::<u32>().ok());
    code.is_some_and(|c| c & 0xff == 5)
}

const NEWEST: &str = "select version from _sqlx_migrations order by version desc limit 1";

fn refuse(error: MigrateError, found: Option<i64>, known: &Migrator) -> Error {
    let known = known.iter().map(|m| m.version).max().unwrap_or(0);
    match (error, found) {
        (MigrateError::VersionMissing(_), Some(found)) if found > known => Error::Newer { found, known },
        (MigrateError::Execute(e), _) => Error::sql(e),
        (e, _) => Error::Migration(Box::new(e)),
    }
}

/// Makes the file with mode 0600 if it is missing: SQLite gives its side files the mode of the database.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
