//! The secret that opens the data: who has it may read the recordings.

use std::fmt;
use std::hint::black_box;
use std::io;

/// Random bytes of a token; twice as many as would do.
const BYTES: usize = 32;

/// A secret made anew for each start, of 256 random bits, written in hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one from the kernel's random numbers.
    ///
    /// # Errors
    /// When the kernel has none to give.
    pub fn new() -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect()))
    }

    /// One that another process made; `None` when it is too short to be one, or could not stand in a header.
    pub fn parse(text: &str) -> Option<Self> {
        let is_token = text.len() == 2 * BYTES && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_token.then(|| Self(text.to_owned()))
    }

    /// The text, for the URL that the user gets. It belongs nowhere else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether the text is the token. Takes equally long for all texts of its length, so that no prefix can be found
    /// by trying.
    pub fn is(&self, text: &[u8]) -> bool {
        let difference = |a: &[u8], b: &[u8]| a.iter().zip(b).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        text.len() == self.0.len() && black_box(difference(text, self.0.as_bytes())) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tokens_have_the_bits_they_claim() {
        let tokens: HashSet<String> = (0..64).map(|_| Token::new().unwrap().0).collect();
        assert_eq!(tokens.len(), 64);
        assert!(tokens.iter().all(|token| token.len() == 64 && Token::parse(token).is_some()));
        // Each of 64 places takes more than a few of the 16 digits among 64 tokens.
        for place in 0..64 {
            let digits: HashSet<u8> = tokens.iter().map(|token| token.as_bytes()[place]).collect();
            assert!(digits.len() > 8, "place {place} took only {} digits", digits.len());
        }
    }

    #[test]
    fn only_the_whole_token_is_it() {
        let token = Token::new().unwrap();
        let text = token.reveal().to_owned();
        assert!(token.is(text.as_bytes()));
        assert!(!token.is(&text.as_bytes()[1..]) && !token.is(b"") && !token.is(format!("{text}0").as_bytes()));
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] ^= 1;
            assert!(!token.is(&other));
        }
    }

    #[test]
    fn what_is_no_token_is_not_taken_for_one() {
        assert_eq!(Token::parse(""), None);
        assert_eq!(Token::parse(&"0".repeat(63)), None);
        assert_eq!(Token::parse(&"G".repeat(64)), None);
    }

    #[test]
    fn a_token_is_not_printed_by_accident() {
        assert_eq!(format!("{:?}", Token::new().unwrap()), "Token(…)");
    }
}
