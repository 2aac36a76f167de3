//! What of a picture will probably be asked for: what was asked of the one before.

use std::sync::PoisonError;

use super::Baseline;
use super::headers::Headers;
use super::inverse::{Inverse, Scale, Transformed, with_vectors, without_transform};
use super::painter::Painter;
use super::planes::{Plane, Units};
use super::scan::{Bits, Scan};
use super::survey::{Ahead, Survey};
use crate::decode::DecodeError;
use crate::preprocess::Region;

/// Parts of pictures of one size that were asked for together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Width and height of the picture, pixels; of others nothing is expected.
    pub size: (u32, u32),
    /// What lies under these,
    pub regions: Vec<Region>,
    /// at this size.
    pub scale: Scale,
}

/// What was expected, decoded.
pub struct Ready {
    expected: Expected,
    planes: Vec<Plane>,
}

impl Baseline {
    /// Planes of what was expected, when that is what is asked for.
    pub(super) fn take_ready(&self, regions: &[Region], scale: Scale) -> Option<Vec<Plane>> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |ready: &mut Ready| {
            (&ready.expected.regions[..], ready.expected.scale) == (regions, scale)
        };
        Some(ready.take_if(is_it)?.planes)
    }
}

/// Passes over all codes once; see [`Survey::of`].
pub fn survey(
    headers: &Headers,
    scan: &Scan,
    expected: Option<&Expected>,
) -> Result<(Survey, Option<Ready>), DecodeError> {
    let size = (headers.width_px, headers.height_px);
    if let Some(expected) = expected.filter(|expected| expected.size == size) {
        let units = Units::under(&expected.regions, headers);
        let both = Both {
            headers,
            scan,
            units,
        };
        if let Ok(both) = with_vectors(expected.scale, both) {
            let (survey, planes) = both?;
            let expected = expected.clone();
            return Ok((survey, Some(Ready { expected, planes })));
        }
    }
    Ok((without_transform(Alone { headers, scan })?, None))
}

/// A survey in which nothing is decoded.
struct Alone<'a> {
    headers: &'a Headers,
    scan: &'a Scan,
}

impl Transformed for Alone<'_> {
    type Output = Result<Survey, DecodeError>;

    #[inline(always)]
    fn with<I: Inverse>(self, _: I) -> Self::Output {
        Survey::of(self.headers, self.scan, &mut ())
    }
}

/// A survey in which some units are decoded.
struct Both<'a> {
    headers: &'a Headers,
    scan: &'a Scan,
    units: Units,
}

impl Transformed for Both<'_> {
    type Output = Result<(Survey, Vec<Plane>), DecodeError>;

    #[inline(always)]
    fn with<I: Inverse>(self, transform: I) -> Self::Output {
        let Self {
            headers,
            scan,
            units,
        } = self;
        let mut painting = Painting {
            painter: Painter::new(headers, &units, transform),
            headers,
            units,
        };
        let survey = Survey::of(headers, scan, &mut painting)?;
        Ok((survey, painting.painter.planes()))
    }
}

struct Painting<'h, I> {
    painter: Painter<'h, I>,
    headers: &'h Headers,
    units: Units,
}

impl<I: Inverse> Ahead for Painting<'_, I> {
    #[inline(always)]
    fn wants(&self, column: usize, row: usize) -> bool {
        self.units.contain(column, row)
    }

    #[inline(always)]
    fn block<'a>(
        &mut self,
        n: usize,
        place: [usize; 2],
        first: i16,
        bits: Bits<'a>,
    ) -> Option<Bits<'a>> {
        let stop = self.painter.paint(n, place, first, bits)?;
        self.headers.components[n].ac.pass_rest(bits, stop)
    }
}

#[cfg(test)]
mod tests;
