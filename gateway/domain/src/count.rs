// SPDX-License-Identifier: Apache-2.0
//! How many of something there are, in words.

/// A number and what is counted, in the form that goes with it: `1 machine`, `2 machines`.
pub fn counted(count: impl TryInto<u64>, one: &str, many: &str) -> String {
    match count.try_into() {
        Ok(1) => format!("1 {one}"),
        Ok(count) => format!("{count} {many}"),
        // Below nothing there is none.
        Err(_) => format!("0 {many}"),
    }
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_is_one_and_all_else_is_many() {
        for (count, words) in
            [(0_i64, "0 people"), (1, "1 person"), (2, "2 people"), (21, "21 people"), (-1, "0 people")]
        {
            assert_eq!(counted(count, "person", "people"), words);
        }
        assert_eq!(counted([7].len(), "machine", "machines"), "1 machine");
    }
}
