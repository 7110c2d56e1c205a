//! Many Topic Names, asked with one Topic Filter: the retained messages of a server.
//!
//! The names lie in one ordered map, level by level, so that all names below a level lie together.
//! A search reads names in order, and where none can match it seeks to the next that can (skip
//! scan). All it has to remember is where to go on, which no change of the map invalidates.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use core::borrow::Borrow;
use core::cmp::Ordering;
use core::fmt;
use core::ops::{Bound, ControlFlow};

use crate::{TopicFilter, TopicName};

/// A map from Topic Names to values that finds all names matching a Topic Filter, in bounded steps.
///
/// Names are ordered level by level: a name comes before all names below it, and these before the
/// next name of its own level.
#[derive(Clone)]
pub struct TopicTree<V> {
    names: BTreeMap<Name, V>,
}

/// Where a search goes on. The default is the beginning.
///
/// It stays valid whatever is added to or removed from the tree: names that were there all the
/// time are found once, names added behind it are found, those before it are not. It belongs to
/// one filter; with another one it finds those of its matches that lie behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Names before this one are done.
    from: String,
    /// The name itself is done too.
    after: bool,
    ended: bool,
}

/// What a step of a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next<'s, V> {
    /// The next name that matches, and its value.
    Match(TopicName<'s>, &'s V),
    /// The steps are used up; the cursor says where to go on.
    OutOfSteps,
    /// There are no more matches.
    End,
}

impl<V> Default for TopicTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V> TopicTree<V> {
    /// An empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            names: BTreeMap::new(),
        }
    }

    /// Names in the tree.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: TopicName<'_>) -> Option<&V> {
        self.names.get(&name.as_str() as &dyn Text)
    }

    /// The value of a name, to change it.
    #[must_use]
    pub fn get_mut(&mut self, name: TopicName<'_>) -> Option<&mut V> {
        self.names.get_mut(&name.as_str() as &dyn Text)
    }

    /// Adds a name, or replaces and returns its value.
    pub fn insert(&mut self, name: TopicName<'_>, value: V) -> Option<V> {
        self.names.insert(Name(Box::from(name.as_str())), value)
    }

    /// Removes a name and returns its value.
    pub fn remove(&mut self, name: TopicName<'_>) -> Option<V> {
        self.names.remove(&name.as_str() as &dyn Text)
    }

    /// All names, level by level.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (TopicName<'_>, &V)> {
        self.names
            .iter()
            .map(|(name, value)| (name.as_name(), value))
    }

    /// Keeps the names for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(TopicName<'_>, &mut V) -> bool) {
        self.names.retain(|name, value| keep(name.as_name(), value));
    }

    /// The next name that a filter matches, the `$` rule included.
    ///
    /// Each name looked at takes one of `steps`, whether it matches or not. A step takes time in
    /// the logarithm of the number of names, and in the bytes of the filter and the name. No search
    /// takes more steps than there are names, and one. Shared Subscriptions get no retained
    /// messages (section 4.8.2).
    pub fn next_match<'s>(
        &'s self,
        filter: TopicFilter<'_>,
        cursor: &mut Cursor,
        steps: &mut usize,
    ) -> Next<'s, V> {
        let mut found = None;
        self.for_each_match(filter, cursor, steps, |name, value| {
            found = Some((name, value));
            ControlFlow::Break(())
        });
        match found {
            Some((name, value)) => Next::Match(name, value),
            None if cursor.ended => Next::End,
            None => Next::OutOfSteps,
        }
    }

    /// Calls `f` with the names that a filter matches and their values, as
    /// [`next_match`](Self::next_match) finds them, until `f` breaks, the steps are used up, or
    /// there are no more ([`Cursor::is_ended`]); cheaper than one call for each.
    pub fn for_each_match<'s>(
        &'s self,
        filter: TopicFilter<'_>,
        cursor: &mut Cursor,
        steps: &mut usize,
        mut f: impl FnMut(TopicName<'s>, &'s V) -> ControlFlow<()>,
    ) {
        if *cursor == Cursor::new() {
            cursor.push_least(filter.as_str());
        }
        let only_one = !filter.has_wildcard();
        // Each round reads names one after the other until it pays to seek.
        while !cursor.ended {
            let from = &cursor.from.as_str() as &dyn Text;
            let from = if cursor.after {
                Bound::Excluded(from)
            } else {
                Bound::Included(from)
            };
            let mut names = self.names.range::<dyn Text, _>((from, Bound::Unbounded));
            let mut last_match = None;
            loop {
                if *steps == 0 {
                    last_match
                        .into_iter()
                        .for_each(|name| cursor.go_after(name));
                    return;
                }
                *steps -= 1;
                let Some((name, value)) = names.next() else {
                    cursor.ended = true;
                    break;
                };
                let name = name.as_name();
                match verdict(filter, name) {
                    Verdict::Match => {
                        cursor.ended = only_one;
                        if f(name, value).is_break() {
                            cursor.go_after(name);
                            return;
                        }
                        if only_one {
                            break;
                        }
                        last_match = Some(name);
                    }
                    Verdict::Seek(seek) => {
                        cursor.go_to(name, seek);
                        break;
                    }
                    Verdict::End => {
                        cursor.ended = true;
                        break;
                    }
                }
            }
        }
    }
}

impl<V: fmt::Debug> fmt::Debug for TopicTree<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Cursor {
    /// The beginning.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            from: String::new(),
            after: false,
            ended: false,
        }
    }

    /// Whether the search has found everything.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        self.ended
    }

    fn go_after(&mut self, name: TopicName<'_>) {
        self.from.clear();
        self.from.push_str(name.as_str());
        self.after = true;
    }

    fn go_to(&mut self, name: TopicName<'_>, seek: Seek<'_>) {
        let kept = |bytes: usize| name.as_str().get(..bytes).unwrap_or_default();
        self.from.clear();
        self.after = false;
        match seek {
            Seek::At {
                kept_bytes,
                filter_rest,
            } => {
                self.from.push_str(kept(kept_bytes));
                self.push_least(filter_rest);
            }
            Seek::Below { filter_rest } => {
                self.from.push_str(name.as_str());
                self.from.push('/');
                self.push_least(filter_rest);
            }
            Seek::Behind { kept_bytes } => {
                self.from.push_str(kept(kept_bytes));
                self.from.push(BEHIND);
            }
            Seek::BehindDollar => self.from.push(BEHIND_DOLLAR),
        }
    }

    /// Appends the least levels that these match: an empty one for `+`, none for `#`.
    fn push_least(&mut self, filter_rest: &str) {
        for (index, level) in filter_rest
            .split('/')
            .enumerate()
            .take_while(|&(_, l)| l != "#")
        {
            if index > 0 {
                self.from.push('/');
            }
            if level != "+" {
                self.from.push_str(level);
            }
        }
    }
}

/// The character behind the separator in the order of [`level_wise`]: a name with it appended comes
/// behind all names below that name, and before all others that come behind these.
const BEHIND: char = '\u{1}';

/// The character behind `$`.
const BEHIND_DOLLAR: char = '%';

/// What a filter has to say about a name, and so about those behind it.
enum Verdict<'f> {
    Match,
    /// Nothing between the name and there matches.
    Seek(Seek<'f>),
    /// Nothing behind the name matches.
    End,
}

enum Seek<'f> {
    /// To the least name that begins with these bytes of the name, whole levels, and then matches
    /// the rest of the filter.
    At {
        kept_bytes: usize,
        filter_rest: &'f str,
    },
    /// To the least name below the name that matches the rest of the filter.
    Below { filter_rest: &'f str },
    /// Behind all names that begin with the levels in these bytes of the name.
    Behind { kept_bytes: usize },
    /// Behind all names that begin with `$`.
    BehindDollar,
}

fn verdict<'f>(filter: TopicFilter<'f>, name: TopicName<'_>) -> Verdict<'f> {
    // [MQTT5-4.7.2-1] [MQTT311-4.7.2-1]
    if filter.starts_with_wildcard() && name.starts_with_dollar() {
        return Verdict::Seek(Seek::BehindDollar);
    }
    let mut filter_rest = filter.as_str();
    let mut name_rest = name.as_str();
    let mut level_start = 0;
    // Once a level is past what the filter wants, only another level under the last `+` can help.
    let mut behind = Verdict::End;
    loop {
        let (filter_level, filter_tail) = split_level(filter_rest);
        let (name_level, name_tail) = split_level(name_rest);
        let level_end = level_start + name_level.len();
        match filter_level {
            "#" => return Verdict::Match,
            "+" => {
                behind = Verdict::Seek(Seek::Behind {
                    kept_bytes: level_end,
                })
            }
            _ => match name_level.cmp(filter_level) {
                Ordering::Less => {
                    return Verdict::Seek(Seek::At {
                        kept_bytes: level_start,
                        filter_rest,
                    });
                }
                Ordering::Equal => {}
                Ordering::Greater => return behind,
            },
        }
        match (filter_tail, name_tail) {
            (None, None) | (Some("#"), None) => return Verdict::Match,
            (None, Some(_)) => return behind,
            (Some(filter_rest), None) => return Verdict::Seek(Seek::Below { filter_rest }),
            (Some(filter_tail), Some(name_tail)) => {
                filter_rest = filter_tail;
                name_rest = name_tail;
                level_start = level_end + 1;
            }
        }
    }
}

fn split_level(rest: &str) -> (&str, Option<&str>) {
    match rest.split_once('/') {
        Some((level, tail)) => (level, Some(tail)),
        None => (rest, None),
    }
}

/// A name as the key of the map, in the order of [`level_wise`].
#[derive(Clone)]
struct Name(Box<str>);

impl Name {
    fn as_name(&self) -> TopicName<'_> {
        TopicName::trusted(&self.0)
    }
}

/// What lets the map be asked with a borrowed name.
trait Text {
    fn text(&self) -> &str;
}

impl Text for Name {
    fn text(&self) -> &str {
        &self.0
    }
}

impl Text for &str {
    fn text(&self) -> &str {
        self
    }
}

impl<'a> Borrow<dyn Text + 'a> for Name {
    fn borrow(&self) -> &(dyn Text + 'a) {
        self
    }
}

impl Ord for dyn Text + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        level_wise(self.text(), other.text())
    }
}

impl PartialOrd for dyn Text + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Text + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for dyn Text + '_ {}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        level_wise(&self.0, &other.0)
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Name {}

impl TopicName<'_> {
    /// The order in which a [`TopicTree`] has its names: a name comes before all names below it, and
    /// these before the next name of its own level.
    #[must_use]
    pub fn cmp_by_level(self, other: TopicName<'_>) -> Ordering {
        level_wise(self.as_str(), other.as_str())
    }
}

/// The order of bytes, except that the separator sorts lowest; U+0000, whose place it takes, is in
/// no name.
fn level_wise(a: &str, b: &str) -> Ordering {
    const WORD: usize = 8;
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // Neighbours share long prefixes, which are compared word by word.
    let words = a.chunks_exact(WORD).zip(b.chunks_exact(WORD));
    let common = words.take_while(|(a, b)| a == b).count() * WORD;
    let rank = |&byte: &u8| if byte == b'/' { 0 } else { byte };
    let a = a.get(common..).unwrap_or_default().iter().map(rank);
    a.cmp(b.get(common..).unwrap_or_default().iter().map(rank))
}
