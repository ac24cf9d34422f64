//! Header fields as they came over the wire: order, duplicates and bytes kept.

use std::fmt;

/// The fields of one head or trailer section.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, Vec<u8>)>);

impl Fields {
    pub fn push(&mut self, name: String, value: Vec<u8>) {
        self.0.push((name, value));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every value of `name`, in order; bytes that are no UTF-8 are replaced.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    /// The values of `name` joined as RFC 9110 5.3 joins them.
    pub fn joined(&self, name: &str) -> String {
        self.all(name).join(", ")
    }

    pub fn has(&self, name: &str) -> bool {
        self.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
    }

    /// The one value of `name`; none where it is absent or repeated.
    pub fn only(&self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        if values.len() == 1 { values.pop() } else { None }
    }

    /// Whether the comma list `name` holds `token`, whatever its case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.all(name).iter().flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    /// Names and values without the fields in `names`, names in lower case: what two heads are compared by.
    pub fn without(&self, names: &[&str]) -> Vec<(String, String)> {
        self.iter()
            .filter(|(name, _)| !names.iter().any(|skipped| skipped.eq_ignore_ascii_case(name)))
            .map(|(name, value)| (name.to_ascii_lowercase(), String::from_utf8_lossy(value).into_owned()))
            .collect()
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(n, v)| format!("{n}: {}", v.escape_ascii()))).finish()
    }
}
