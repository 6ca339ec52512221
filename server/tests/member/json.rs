//! Just enough JSON to hold log lines to it: strict about what an object is, generous with values.

use std::collections::BTreeMap;

/// The members of an object: strings as they are meant, everything else as it stands.
pub type Object = BTreeMap<String, String>;

/// Reads a line that must be exactly one object.
pub fn parse_object(line: &str) -> Result<Object, String> {
    let mut reader = Reader { rest: line };
    let object = reader.object()?;
    if reader.rest.is_empty() { Ok(object) } else { Err(format!("then {:?}", reader.rest)) }
}

struct Reader<'l> {
    rest: &'l str,
}

impl<'l> Reader<'l> {
    fn object(&mut self) -> Result<Object, String> {
        self.token('{')?;
        let mut object = Object::new();
        if self.rest.starts_with('}') {
            self.token('}')?;
            return Ok(object);
        }
        loop {
            let key = self.string()?;
            self.token(':')?;
            let value = self.value()?;
            if object.insert(key.clone(), value).is_some() {
                return Err(format!("{key:?} twice"));
            }
            if self.token(',').is_err() {
                self.token('}')?;
                return Ok(object);
            }
        }
    }

    fn value(&mut self) -> Result<String, String> {
        let before = self.rest;
        match before.chars().next() {
            Some('"') => return self.string(),
            Some('{') => drop(self.object()?),
            Some('[') => self.array()?,
            _ => {
                let ends = |c: char| matches!(c, ',' | '}' | ']');
                let end = before.find(ends).ok_or("a value without an end")?;
                let text = &before[..end];
                let is_word = matches!(text, "true" | "false" | "null");
                if !is_word && text.parse::<f64>().is_err() {
                    return Err(format!("no value: {text:?}"));
                }
                self.rest = &before[end..];
            }
        }
        Ok(before[..before.len() - self.rest.len()].to_owned())
    }

    fn array(&mut self) -> Result<(), String> {
        self.token('[')?;
        if self.token(']').is_ok() {
            return Ok(());
        }
        loop {
            self.value()?;
            if self.token(',').is_err() {
                return self.token(']');
            }
        }
    }

    fn string(&mut self) -> Result<String, String> {
        self.token('"')?;
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(c @ ('"' | '\\' | '/')) => text.push(c),
                    Some('u') => {
                        let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                        let code = u32::from_str_radix(&digits, 16).map_err(|e| e.to_string())?;
                        text.push(char::from_u32(code).ok_or("half a character")?);
                    }
                    other => return Err(format!("escape {other:?}")),
                },
                c if c < ' ' => return Err(format!("raw control character {c:?}")),
                c => text.push(c),
            }
        }
        Err("a string without an end".to_owned())
    }

    fn token(&mut self, token: char) -> Result<(), String> {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.ok_or_else(|| format!("no {token:?} before {:?}", self.rest))?;
        Ok(())
    }
}

#[test]
fn objects_are_read_and_others_are_not() {
    let object = parse_object(r#"{"a":"x\"y","b":[1,"]"],"c":{"d":null},"e":-1.5}"#);
    let object = object.expect("it is one");
    assert_eq!(object["a"], "x\"y");
    assert_eq!(object["b"], r#"[1,"]"]"#);
    assert_eq!(object["c"], r#"{"d":null}"#);
    assert_eq!(object["e"], "-1.5");
    for wrong in ["", "{", "{}x", r#"{"a"}"#, r#"{"a":1,}"#, r#"{"a":1,"a":2}"#, r#"{"a":x}"#, "[]"]
    {
        assert!(parse_object(wrong).is_err(), "{wrong:?} was read");
    }
}
