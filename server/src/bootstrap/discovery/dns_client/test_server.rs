//! A name server for tests, on a port of its own: one name, over UDP and TCP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;

use super::SrvRecord;

/// What it knows, and how it behaves.
#[derive(Clone)]
pub struct Zone {
    name: String,
    records: Vec<SrvRecord>,
    /// Answers longer than a packet are told to come over TCP.
    size_bytes_max: usize,
    /// Otherwise a question with an extension is refused.
    pub knows_extensions: bool,
    /// The code of each answer.
    pub code: u8,
    /// Answers with a wrong number that come before the right one.
    pub forgeries: u32,
}

impl Zone {
    /// Knows these records of one name.
    pub fn new(name: &str, records: Vec<SrvRecord>) -> Self {
        let name = name.to_ascii_lowercase();
        let (size_bytes_max, knows_extensions) = (1232, true);
        Self { name, records, size_bytes_max, knows_extensions, code: 0, forgeries: 0 }
    }

    fn answer(&self, question: &[u8], size_bytes_max: usize) -> Vec<u8> {
        let mut name = String::new();
        let mut at = 12;
        while question[at] != 0 {
            let len = usize::from(question[at]);
            name += str::from_utf8(&question[at + 1..=at + len]).unwrap();
            name.push('.');
            at += 1 + len;
        }
        let mut answer = question[..at + 5].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
        if !self.knows_extensions && question[11] > 0 {
            answer[3] |= 1;
            return answer;
        }
        answer[3] |= self.code;
        if name.to_ascii_lowercase() != self.name {
            answer[3] |= 3;
            return answer;
        }
        let empty = answer.clone();
        answer[6..8].copy_from_slice(&u16::try_from(self.records.len()).unwrap().to_be_bytes());
        for record in &self.records {
            answer.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
            let mut target = Vec::new();
            for label in record.target.trim_end_matches('.').split('.') {
                target.push(u8::try_from(label.len()).unwrap());
                target.extend(label.as_bytes());
            }
            target.push(0);
            answer.extend(u16::try_from(6 + target.len()).unwrap().to_be_bytes());
            for half in [record.priority, record.weight, record.port] {
                answer.extend(half.to_be_bytes());
            }
            answer.extend(target);
        }
        if answer.len() > size_bytes_max {
            answer = empty;
            answer[2] |= 0x02;
        }
        answer
    }
}

/// Serves until the test ends.
pub fn serve(zone: Zone) -> SocketAddr {
    // A port that is free for both.
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let over_tcp = zone.clone();
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((len, from)) = udp.recv_from(&mut buffer) {
            let answer = zone.answer(&buffer[..len], zone.size_bytes_max);
            for forgery in 0..zone.forgeries {
                let mut forged = answer.clone();
                forged[0] ^= 1 << forgery;
                udp.send_to(&forged, from).unwrap();
            }
            udp.send_to(&answer, from).unwrap();
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut question).unwrap();
            let answer = over_tcp.answer(&question, 65_535);
            let len = u16::try_from(answer.len()).unwrap();
            stream.write_all(&len.to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
    address
}
