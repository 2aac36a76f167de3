//! From effects of the board to messages: events get what is needed to end them later, and a picture.

use image::RgbImage;

use super::Lookout;
use crate::annotate::{self, Mark};
use crate::decide::{Effect, EventIds, OpenEvent};
use crate::decode::Picture;
use crate::event::{Event, EventType, ZoneState};
use crate::publish::{MAX_PICTURE_BYTES, Outgoing};

impl<I: EventIds> Lookout<I> {
    pub(super) fn publish(
        &self,
        seen: Option<(usize, &Picture)>,
        effects: Vec<Effect>,
    ) -> Vec<Outgoing> {
        effects
            .into_iter()
            .map(|effect| match effect {
                Effect::State {
                    zone,
                    label,
                    state,
                    attributes,
                    ..
                } => Outgoing::Zone {
                    zone,
                    label,
                    state,
                    attributes,
                },
                Effect::Removed { zone, label } => Outgoing::RemovedZone { zone, label },
                Effect::Event(event) => self.publish_event(seen, event),
            })
            .collect()
    }

    fn publish_event(&self, seen: Option<(usize, &Picture)>, mut event: Box<Event>) -> Outgoing {
        let wanted = self.evidence && event.kind == EventType::Confirmed;
        let evidence = seen.filter(|_| wanted).and_then(|(index, picture)| {
            let rgb = picture.whole().ok()?;
            Some(self.picture(index, &rgb))
        });
        if evidence.is_some() {
            event.evidence = Some(event.id.clone());
        }
        let open = OpenEvent::of(&event).and_then(|open| serde_json::to_value(open).ok());
        Outgoing::Event {
            event,
            evidence,
            open,
        }
    }

    /// The frame with its zones and what is ON in them, at most 96 KiB of JPEG.
    pub(super) fn picture(&self, index: usize, rgb: &RgbImage) -> Vec<u8> {
        let eye = &self.cameras[index];
        let marks: Vec<Mark> = eye
            .zones
            .iter()
            .map(|zone| {
                let labels = self
                    .board
                    .views()
                    .filter(|view| *view.zone == zone.id && view.state == ZoneState::On)
                    .map(|view| {
                        let p = view.median.map_or(0.0, |median| median.probability);
                        (view.plan.prompt.clone(), p)
                    })
                    .collect();
                Mark {
                    shape: zone.shape.clone(),
                    labels,
                }
            })
            .collect();
        let mut annotated = rgb.clone();
        annotate::zones(&mut annotated, &marks);
        annotate::jpeg_at_most(&annotated, MAX_PICTURE_BYTES)
    }
}
