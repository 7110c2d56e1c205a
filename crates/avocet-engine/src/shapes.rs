//! Which shapes of wildcard filters a session uses: each costs every match in all shards.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use avocet_topic::{Shape, TopicFilterBuf, shape};

use crate::routes::Routes;
use crate::subscriptions::Subscriptions;

/// How many subscriptions of a session have each wildcard shape. Sessions with no more
/// subscriptions than allowed shapes need no count, so they have none.
#[derive(Debug, Default)]
pub(crate) struct Shapes(Option<Box<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    by_shape: BTreeMap<Shape, u32>,
}

impl Shapes {
    /// Whether the session may use one more filter, which is not among its `subscriptions`, and
    /// then has `max` shapes at most.
    pub(crate) fn has_room(
        &mut self,
        filter: &TopicFilterBuf,
        subscriptions: &Subscriptions,
        routes: &Routes,
        max: usize,
    ) -> bool {
        let shape = matched_shape(filter);
        if shape.is_exact() || (self.0.is_none() && subscriptions.len() < max) {
            return true;
        }
        let counts = self.0.get_or_insert_with(|| {
            let mut counts = Box::<Counts>::default();
            for filter in subscriptions.filters(routes) {
                counts.insert(matched_shape(&filter));
            }
            counts
        });
        counts.by_shape.len() < max || counts.by_shape.contains_key(&shape)
    }

    /// The session subscribed to one more filter.
    pub(crate) fn insert(&mut self, filter: &TopicFilterBuf) {
        if let Some(counts) = &mut self.0 {
            counts.insert(matched_shape(filter));
        }
    }

    /// It no longer subscribes to one of its filters.
    pub(crate) fn remove(&mut self, filter: &TopicFilterBuf) {
        if let Some(counts) = &mut self.0 {
            counts.remove(matched_shape(filter));
        }
    }
}

impl Counts {
    fn insert(&mut self, shape: Shape) {
        if !shape.is_exact() {
            *self.by_shape.entry(shape).or_default() += 1;
        }
    }

    fn remove(&mut self, shape: Shape) {
        if let Some(count) = self.by_shape.get_mut(&shape) {
            *count -= 1;
            if *count == 0 {
                self.by_shape.remove(&shape);
            }
        }
    }
}

/// The shape of a filter, or of that behind a Share Name.
fn matched_shape(filter: &TopicFilterBuf) -> Shape {
    let filter = filter.as_filter();
    let share = filter.share().ok().flatten();
    shape(share.map_or(filter, |share| share.topic_filter))
}
