//! The authentication that precedes D-Bus messages: mechanism EXTERNAL, either side, as pure line machines.
//!
//! The kernel says who the peer of a unix socket is (`SO_PEERCRED`), so nothing secret is exchanged; the lines only agree
//! on that. Descriptor passing is not offered. Facts: D-Bus Specification, "Authentication Protocol".

/// What a client sends first: the credentials byte, its user id in hexadecimal digits of its decimal digits.
pub fn client_greeting(uid: u32) -> Vec<u8> {
    let hex: String = uid.to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
    format!("\0AUTH EXTERNAL {hex}\r\n").into_bytes()
}

/// What a client sends when it is let in; messages follow.
pub const CLIENT_BEGIN: &[u8] = b"BEGIN\r\n";

/// Judges the server's answer to the greeting.
///
/// # Errors
/// When the server does not let us in.
pub fn client_accepts(line: &[u8]) -> Result<(), String> {
    if line.starts_with(b"OK") {
        Ok(())
    } else {
        Err(format!("authentication refused: {}", String::from_utf8_lossy(line)))
    }
}

/// The server's side of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerAuth {
    /// Nothing came yet; the first byte has to be NUL.
    Start,
    WaitingForAuth,
    /// The client named the mechanism without its identity: that comes next.
    WaitingForData,
    WaitingForBegin,
    /// Messages follow.
    Done,
}

impl ServerAuth {
    /// Takes one line of the client, `uid` being who it is according to the kernel and `guid` the server's id. Returns the
    /// line to answer with, which may be empty.
    ///
    /// # Errors
    /// When this is not the beginning of the protocol at all.
    pub fn line(&mut self, line: &[u8], uid: u32, guid: &str) -> Result<String, String> {
        let line = match (*self, line.strip_prefix(b"\0")) {
            (ServerAuth::Start, Some(rest)) => {
                *self = ServerAuth::WaitingForAuth;
                rest
            }
            (ServerAuth::Start, None) => return Err("not a D-Bus client".to_owned()),
            _ => line,
        };
        let line = String::from_utf8_lossy(line);
        let mut words = line.split_ascii_whitespace();
        let answer = match (*self, words.next().unwrap_or(""), words.next(), words.next()) {
            (ServerAuth::WaitingForAuth, "AUTH", Some("EXTERNAL"), Some(identity)) => self.judge(identity, uid, guid),
            (ServerAuth::WaitingForAuth, "AUTH", Some("EXTERNAL"), None) => {
                *self = ServerAuth::WaitingForData;
                "DATA\r\n".to_owned()
            }
            (ServerAuth::WaitingForData, "DATA", identity, None) => self.judge(identity.unwrap_or(""), uid, guid),
            (ServerAuth::WaitingForBegin, "BEGIN", None, None) => {
                *self = ServerAuth::Done;
                String::new()
            }
            (_, "AUTH" | "CANCEL" | "ERROR", _, _) => self.reject(),
            _ => "ERROR\r\n".to_owned(),
        };
        Ok(answer)
    }

    /// An empty identity means "whoever I am".
    fn judge(&mut self, identity: &str, uid: u32, guid: &str) -> String {
        let own: String = uid.to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        if identity.is_empty() || identity == own {
            *self = ServerAuth::WaitingForBegin;
            format!("OK {guid}\r\n")
        } else {
            self.reject()
        }
    }

    fn reject(&mut self) -> String {
        *self = ServerAuth::WaitingForAuth;
        "REJECTED EXTERNAL\r\n".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converse(lines: &[&[u8]], uid: u32) -> (ServerAuth, Vec<String>) {
        let mut auth = ServerAuth::Start;
        let answers = lines.iter().map(|line| auth.line(line, uid, "g").unwrap()).collect();
        (auth, answers)
    }

    #[test]
    fn lets_a_client_in_as_whom_the_kernel_says() {
        assert_eq!(client_greeting(1000), b"\0AUTH EXTERNAL 31303030\r\n");
        let (auth, answers) = converse(&[b"\0AUTH", b"AUTH EXTERNAL 31303030", b"NEGOTIATE_UNIX_FD", b"BEGIN"], 1000);
        assert_eq!(auth, ServerAuth::Done);
        assert_eq!(answers, ["REJECTED EXTERNAL\r\n", "OK g\r\n", "ERROR\r\n", ""]);
    }

    #[test]
    fn lets_in_a_client_that_does_not_name_itself() {
        // As sd-bus does it.
        let (auth, answers) = converse(&[b"\0AUTH EXTERNAL", b"DATA", b"BEGIN"], 7);
        assert_eq!((auth, answers), (ServerAuth::Done, vec!["DATA\r\n".into(), "OK g\r\n".into(), String::new()]));
    }

    #[test]
    fn keeps_impostors_and_strangers_out() {
        let (auth, answers) = converse(&[b"\0AUTH EXTERNAL 30", b"BEGIN"], 1000);
        assert_eq!((auth, &answers[1][..]), (ServerAuth::WaitingForAuth, "ERROR\r\n"));
        assert!(ServerAuth::Start.line(b"GET / HTTP/1.1", 0, "g").is_err());
        assert!(client_accepts(b"REJECTED EXTERNAL").is_err());
    }
}
