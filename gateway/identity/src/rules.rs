// SPDX-License-Identifier: Apache-2.0
//! What a name and a password may look like.

use crate::Error;
use portcullis_domain::Secret;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;
use zxcvbn::{Score, zxcvbn};

/// What is said of a password that was found in a breach.
pub(crate) const BREACHED: &str =
    "this password is on a list of passwords that were stolen elsewhere: choose one that you use nowhere else";
/// Above this it is refused rather than cut.
const LONGEST: usize = 256;
/// Four bytes a code point, and some that normalisation composes.
const LONGEST_BYTES: usize = LONGEST * 8;
const LONGEST_NAME: usize = 64;

/// What everybody tries first, beside the 30,000 that zxcvbn knows.
const COMMON: &[&str] = &[
    "administrator",
    "changeme",
    "changeme123",
    "correcthorsebatterystaple",
    "default123",
    "hypervisor",
    "iloveyou",
    "letmein123",
    "libvirt",
    "p@ssw0rd",
    "passw0rd1",
    "password",
    "password1",
    "password123",
    "portcullis",
    "portcullis1",
    "proxmox",
    "qwerty123",
    "qwertyuiop",
    "sommer2026",
    "summer2026",
    "trustno1",
    "vmware123",
    "welcome1",
    "welcome123",
    "winter2026",
    "xenserver",
];

/// What every spelling of a name folds to.
pub(crate) fn fold_name(name: &str) -> String {
    // A stranger chooses the text: what is beyond any name's length is not normalised.
    let short: String = name.trim().chars().take(4 * LONGEST_NAME).collect();
    let folded: String = short.nfkc().flat_map(char::to_lowercase).collect();
    folded.nfkc().collect()
}

/// The name as it will be kept, and what it folds to.
pub(crate) fn check_name(name: &str) -> Result<(String, String), Error> {
    let name: String = name.trim().chars().take(4 * LONGEST_NAME).nfkc().collect();
    let good = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+');
    let key = fold_name(&name);
    let lengths = [name.chars().count(), key.chars().count()];
    if lengths.iter().any(|l| !(1..=LONGEST_NAME).contains(l)) || !name.chars().all(good) || !key.chars().all(good) {
        return Err(Error::Invalid("a name is 1 to 64 letters, digits and . _ - @ +".to_owned()));
    }
    Ok((name, key))
}

/// The name shown to people; the sign-in name when it is empty.
pub(crate) fn check_display(display: &str, name: &str) -> Result<String, Error> {
    let display = display.trim();
    if display.chars().count() > 128 || display.chars().any(char::is_control) {
        return Err(Error::Invalid("a display name is at most 128 characters on one line".to_owned()));
    }
    Ok(if display.is_empty() { name.to_owned() } else { display.to_owned() })
}

/// What somebody calls a token or an authenticator.
pub(crate) fn check_label(label: &str) -> Result<String, Error> {
    let label = label.trim();
    if !(1..=64).contains(&label.chars().count()) || label.chars().any(char::is_control) {
        return Err(Error::Invalid("a name for it is 1 to 64 characters on one line".to_owned()));
    }
    Ok(label.to_owned())
}

/// The form of a password that is hashed: NFKC, whole. None when no password may be that long.
pub(crate) fn normalise(password: &str) -> Option<Secret> {
    if password.len() > LONGEST_BYTES {
        return None;
    }
    // Room for all of it beforehand: growing would leave copies behind. NFKC makes at most 18 of one code point.
    let mut text = Zeroizing::new(String::with_capacity(password.len() * 18 + 4));
    text.extend(password.nfkc());
    (text.chars().count() <= LONGEST).then(|| Secret::new(text.as_bytes().to_vec()))
}

/// Refuses a weak password, saying why and what helps.
pub(crate) fn check_strength(password: &Secret, shortest: usize, name_key: &str, others: &[&str]) -> Result<(), Error> {
    let weak = |why: &str| Err(Error::Weak(why.to_owned()));
    let Some(text) = password.expose_text() else { return weak("the password is not text") };
    if text.chars().count() < shortest {
        return weak(&format!(
            "the password is too short: use at least {shortest} characters, better four or more words"
        ));
    }
    let folded = Zeroizing::new(text.to_lowercase());
    if COMMON.contains(&folded.as_str()) {
        return weak("this password is one of those that are tried first: choose another");
    }
    if name_key.chars().count() >= 3 && folded.contains(name_key) {
        return weak("the password contains the name: choose one that does not");
    }
    let mut inputs = vec![name_key, "portcullis"];
    inputs.extend(others);
    let found = zxcvbn(text, &inputs);
    if found.score() >= Score::Three {
        return Ok(());
    }
    let mut why = String::from("the password is easy to guess");
    if let Some(feedback) = found.feedback() {
        if let Some(warning) = feedback.warning() {
            why = format!("{why}. {warning}");
        }
        for suggestion in feedback.suggestions() {
            why = format!("{why} {suggestion}");
        }
    }
    Err(Error::Weak(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strength(password: &str) -> Result<(), Error> {
        check_strength(&normalise(password).unwrap(), 8, "ada", &["Ada Lovelace"])
    }

    #[test]
    fn weak_passwords_are_refused_with_a_reason() {
        for (bad, says) in [
            ("a8!kZ9q", "too short"),
            ("Portcullis", "tried first"),
            ("xqADAzzv91kd", "contains the name"),
            ("12345678901", "guess"),
            ("lovelace1", "guess"),
            ("aaaaaaaaaaaa", "guess"),
        ] {
            let error = strength(bad).unwrap_err();
            assert!(matches!(error, Error::Weak(_)), "{bad}");
            assert!(error.to_string().contains(says), "{bad}: {error}");
            assert!(!error.to_string().contains(bad), "a reason repeats the password");
        }
    }

    // SEC-134
    #[test]
    fn what_is_shortest_is_counted_in_code_points() {
        let strong = normalise("qz7w kx2v").unwrap();
        assert!(check_strength(&strong, 9, "ada", &[]).is_ok());
        let told = check_strength(&strong, 15, "ada", &[]).unwrap_err().to_string();
        assert!(told.contains("at least 15 characters"), "{told}");
        // Fourteen code points of four bytes each are fourteen, and fifteen are enough.
        let emoji =
            |n: usize| normalise(&"🦀🐢🦉🐝🦊🐙🦄🐍🦅🐳🦒🐸🦇🐌🦔".chars().take(n).collect::<String>()).unwrap();
        assert!(check_strength(&emoji(14), 15, "ada", &[]).is_err());
        assert!(check_strength(&emoji(15), 15, "ada", &[]).is_ok());
    }

    #[test]
    fn no_composition_is_asked_for_and_nothing_is_cut() {
        assert!(strength("coral bicycle umbrella thirteen").is_ok());
        assert!(strength("кораллзонтдюжинавелосипед").is_ok());
        assert!(normalise(&"x".repeat(256)).is_some());
        assert!(normalise(&"x".repeat(257)).is_none());
        assert!(normalise(&"x".repeat(1 << 20)).is_none());
        let long = "q".repeat(80);
        assert_ne!(normalise(&format!("{long}a")).unwrap().expose(), normalise(&format!("{long}b")).unwrap().expose());
    }

    #[test]
    fn spellings_of_one_password_are_one() {
        assert_eq!(normalise("é").unwrap().expose(), normalise("e\u{301}").unwrap().expose());
        assert_eq!(normalise("１２").unwrap().expose(), normalise("12").unwrap().expose());
        assert_ne!(normalise("A").unwrap().expose(), normalise("a").unwrap().expose());
    }

    #[test]
    fn spellings_of_one_name_are_one() {
        for spelling in ["Ada", " ADA ", "ａｄａ", "AdA"] {
            assert_eq!(fold_name(spelling), "ada", "{spelling}");
            assert_eq!(check_name(spelling).unwrap().1, "ada");
        }
        assert!(fold_name(&"ﷺ".repeat(10_000)).len() < 64 * 1024);
    }

    #[test]
    fn names_that_could_be_mistaken_for_structure_are_refused() {
        for bad in ["", " ", "a b", "a:b", "a/b", "a\nb", "a\u{200b}b", "a'b", &"a".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_name("ada.lovelace@example.org").is_ok());
        assert!(check_display("a\u{7}b", "ada").is_err());
        assert_eq!(check_display("", "ada").unwrap(), "ada");
    }
}
