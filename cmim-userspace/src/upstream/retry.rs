//! How many retries an upstream affords, so that a failing server is not buried under its own retries.

/// Retries may be this part of the requests: one in five.
const REQUESTS_PER_RETRY: u32 = 5;
/// Retries that a quiet upstream may make before its requests have earned any.
const RESERVE: u32 = 10;

/// Counts in fifths of a retry: each request earns one fifth, each retry costs five.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    fifths: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { fifths: Self::MOST }
    }
}

impl RetryBudget {
    const MOST: u32 = RESERVE * REQUESTS_PER_RETRY;

    pub fn earn(&mut self) {
        self.fifths = (self.fifths + 1).min(Self::MOST);
    }

    /// Pays for one retry, or says that there is none left.
    #[must_use]
    pub fn spend(&mut self) -> bool {
        match self.fifths.checked_sub(REQUESTS_PER_RETRY) {
            Some(rest) => {
                self.fifths = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_fifth_of_requests_after_the_reserve() {
        let mut budget = RetryBudget::default();
        let mut retries = 0;
        for _ in 0..1000 {
            budget.earn();
            if budget.spend() {
                retries += 1;
            }
        }
        assert!((200..=200 + RESERVE).contains(&retries), "{retries}");
    }
}
