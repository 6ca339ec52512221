//! A client that makes one call at a time and waits: for probes and checks, not for load.
//!
//! Invariants:
//! - A failed call, as opposed to a refused one, leaves the client unusable: its owner makes a new
//!   one, so that an answer can never be taken for that of another call.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Connection, Event, HeaderStyle, code};
use crate::failure::Failure;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The gRPC status code.
    pub code: u32,
    /// The gRPC status message.
    pub message: String,
}

impl Status {
    /// The refusal of a call as a failure.
    pub fn failure(&self, path: &str) -> Failure {
        Failure::new(format!("{path}: status {}: {}", self.code, self.message))
    }
}

/// One connection, used by one call after the other.
pub struct Blocking {
    socket: TcpStream,
    connection: Connection,
}

impl Blocking {
    /// Connects; each later wait is bounded by `timeout` too.
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Self, Failure> {
        let failed = || Failure::of(format!("connect to {address}"));
        let socket = TcpStream::connect_timeout(&address, timeout).map_err(failed())?;
        socket.set_nodelay(true).map_err(failed())?;
        socket.set_read_timeout(Some(timeout)).map_err(failed())?;
        socket.set_write_timeout(Some(timeout)).map_err(failed())?;
        let connection = Connection::new(&address.to_string(), HeaderStyle::Indexed, 1);
        Ok(Self { socket, connection })
    }

    /// Makes a unary call and returns the answer's message; a refusal is a failure.
    pub fn call(&mut self, path: &'static str, message: &[u8]) -> Result<Vec<u8>, Failure> {
        self.try_call(path, message)?.map_err(|status| status.failure(path))
    }

    /// Makes a unary call; a refusal is an answer like another.
    pub fn try_call(
        &mut self,
        path: &'static str,
        message: &[u8],
    ) -> Result<Result<Vec<u8>, Status>, Failure> {
        let mut answer = None;
        let outcome = self.try_stream(path, message, |payload| answer = Some(payload.to_vec()))?;
        match (outcome, answer) {
            (Err(status), _) => Ok(Err(status)),
            (Ok(()), Some(answer)) => Ok(Ok(answer)),
            (Ok(()), None) => Err(Failure::new(format!("{path}: no message came"))),
        }
    }

    /// Makes a call with one request, hands each message of the answer on as it comes, and says how
    /// the call ended.
    pub fn try_stream(
        &mut self,
        path: &'static str,
        message: &[u8],
        mut handle_message: impl FnMut(&[u8]),
    ) -> Result<Result<(), Status>, Failure> {
        self.connection.open(0, path, message, true)?;
        loop {
            self.receive(path)?;
            while let Some(event) = self.connection.poll_event()? {
                match event {
                    Event::Message { payload, .. } => handle_message(payload),
                    Event::Ended { code: code::OK, .. } => return Ok(Ok(())),
                    Event::Ended { code, message, .. } => {
                        return Ok(Err(Status { code, message: message.to_owned() }));
                    }
                }
            }
        }
    }

    /// Opens a stream that stays open and sends messages on it; nothing is read. The client can be
    /// used for nothing else from now on.
    pub fn open_stream(&mut self, path: &'static str, messages: &[Vec<u8>]) -> Result<(), Failure> {
        let (first, others) = messages.split_first().expect("a stream begins with a message");
        let id = self.connection.open(0, path, first, false)?;
        for message in others {
            self.connection.send_message(id, message, false);
        }
        self.flush().map_err(Failure::of(format!("write to {path}")))
    }

    /// Reads the messages of such a stream until one of them is the last that is wanted.
    pub fn read_stream(
        &mut self,
        path: &'static str,
        mut is_last: impl FnMut(&[u8]) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        loop {
            self.receive(path)?;
            while let Some(event) = self.connection.poll_event()? {
                match event {
                    Event::Message { payload, .. } => {
                        if is_last(payload)? {
                            return Ok(());
                        }
                    }
                    Event::Ended { code, message, .. } => {
                        let status = Status { code, message: message.to_owned() };
                        return Err(status.failure(path));
                    }
                }
            }
        }
    }

    /// Writes what there is to write, and reads once.
    fn receive(&mut self, path: &str) -> Result<(), Failure> {
        self.flush().map_err(Failure::of(format!("write to {path}")))?;
        let space = self.connection.receive_space();
        let count = self.socket.read(space).map_err(Failure::of(format!("read from {path}")))?;
        if count == 0 {
            return Err(Failure::new(format!("{path}: the server closed the connection")));
        }
        self.connection.handle_received(count);
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while !self.connection.output().is_empty() {
            let count = self.socket.write(self.connection.output())?;
            self.connection.handle_sent(count);
        }
        Ok(())
    }
}
