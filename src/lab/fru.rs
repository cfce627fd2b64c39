//! The inventory record a BMC keeps of its machine (IPMI Platform Management FRU Information Storage Definition 1.0).

/// A FRU image that holds a product area alone: who made it, what it is, its serial number.
pub(super) fn image(vendor: &str, model: &str, serial: &str) -> Vec<u8> {
    let product = product_area(vendor, model, serial);
    // Format version; then offsets in units of 8 bytes: internal, chassis, board, product, multi-record; padding.
    let mut image = vec![1, 0, 0, 0, 1, 0, 0];
    image.push(checksum(&image));
    image.extend(product);
    image
}

fn product_area(vendor: &str, model: &str, serial: &str) -> Vec<u8> {
    // Format version, length (set below), language: English.
    let mut area = vec![1, 0, 25];
    // Manufacturer, name, part number, version, serial number, asset tag, file id.
    for field in [vendor, model, "", "", serial, "", ""] {
        push_text(&mut area, field);
    }
    area.push(0xc1);
    while area.len() % 8 != 7 {
        area.push(0);
    }
    area[1] = u8::try_from((area.len() + 1) / 8).unwrap_or(u8::MAX);
    area.push(checksum(&area));
    area
}

/// Type and length byte (8-bit text, at most 63 bytes), then the text.
fn push_text(area: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(63)];
    area.push(0xc0 | u8::try_from(bytes.len()).unwrap_or(0));
    area.extend_from_slice(bytes);
}

/// What makes the sum of all bytes zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_whole_units_and_sum_to_zero() {
        let image = image("rackhand", "Lab Container", "RH00001");
        assert_eq!(image.len() % 8, 0);
        let (header, product) = image.split_at(8);
        for part in [header, product] {
            assert_eq!(part.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0);
        }
        assert_eq!(usize::from(product[1]) * 8, product.len());
        assert!(product.windows(7).any(|w| w == b"RH00001"));
    }
}
