//! A redis server on a Unix socket, with known keys whose digest tells whether it is as it should be.

use crate::place;
use crate::process::{self, Running, until};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The commands of one server.
#[derive(Clone, Debug)]
pub struct Redis {
    dir: PathBuf,
    socket: PathBuf,
}

impl Redis {
    /// A server to be started in this directory. Skips where redis is not installed.
    pub fn new(dir: &Path) -> Result<Self> {
        place::tool("redis-server")?;
        place::tool("redis-benchmark")?;
        Ok(Self { dir: dir.to_path_buf(), socket: dir.join("redis.sock") })
    }

    /// The command that starts it: nothing is saved, and it can be reached through its socket only.
    pub fn server(&self) -> Result<Command> {
        let mut command = Command::new(place::tool("redis-server")?);
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--enable-debug-command", "local"]);
        command.arg("--unixsocket").arg(&self.socket).current_dir(&self.dir);
        Ok(command)
    }

    /// Waits until it answers.
    pub fn ready(&self, server: &mut Running) -> Result<()> {
        until("redis answers", Duration::from_mins(1), || {
            ensure!(server.alive()?, "it ended at once: {}", server.stderr()?);
            Ok(self.socket.exists() && self.ask(&["PING"]).is_ok_and(|answer| answer.trim() == "PONG"))
        })
    }

    /// Sends one command and gives the answer.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(place::tool("redis-cli")?);
        command.arg("-s").arg(&self.socket).args(words);
        Ok(process::run(&mut command)?.success()?.text())
    }

    /// A load on it, as a command: so many requests of several kinds.
    pub fn benchmark(&self, requests: u32) -> Result<Command> {
        let mut command = Command::new(place::tool("redis-benchmark")?);
        command.arg("-s").arg(&self.socket).args(["-q", "-c", "8", "-P", "4", "-r", "2000", "-d", "120"]);
        command.args(["-t", "set,get,incr,lpush,lpop,sadd,hset,zadd", "-n", &requests.to_string()]);
        Ok(command)
    }

    /// Forgets everything, stores known keys of every type, and gives the digest of the whole.
    pub fn known_digest(&self) -> Result<String> {
        self.ask(&["FLUSHALL"])?;
        let script = "for i = 1, 3000 do \
            redis.call('SET', 's' .. i, string.rep('v' .. i, i % 100 + 1)); \
            redis.call('RPUSH', 'l' .. i % 50, i, 'item' .. i); \
            redis.call('HSET', 'h' .. i % 50, 'field' .. i, string.rep('x', i % 300)); \
            redis.call('ZADD', 'z' .. i % 20, i, 'member' .. i); \
            if i % 3 == 0 then redis.call('DEL', 's' .. i - 1) end \
            end return redis.call('DBSIZE')";
        let size = self.ask(&["EVAL", script, "0"])?;
        let digest = self.ask(&["DEBUG", "DIGEST"])?;
        ensure!(digest.trim().len() == 40, "no digest: {digest}");
        Ok(format!("{} {}", size.trim(), digest.trim()))
    }

    /// Tells it to end.
    pub fn shutdown(&self) -> Result<()> {
        let mut command = Command::new(place::tool("redis-cli")?);
        command.arg("-s").arg(&self.socket).args(["SHUTDOWN", "NOSAVE"]);
        process::run(&mut command).context("redis-cli")?;
        Ok(())
    }
}
