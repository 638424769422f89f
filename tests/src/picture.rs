//! Pictures of a desktop: read from what clients save, compared pixel by pixel, saved for people.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const BYTES_PER_PIXEL: usize = 3;

/// A picture of a desktop.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Three bytes a pixel (red, green, blue), row by row from the top left.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// Reads a binary PPM (`P6`) of 8 bits a sample.
    pub fn from_ppm(ppm: &[u8]) -> Result<Self> {
        const HEADER_WORDS: usize = 4;
        let mut words = Vec::with_capacity(HEADER_WORDS);
        let mut rest = ppm;
        while words.len() < HEADER_WORDS {
            let end = rest
                .iter()
                .position(u8::is_ascii_whitespace)
                .context("the PPM ends within its header")?;
            if end > 0 {
                words.push(str::from_utf8(&rest[..end]).context("the PPM's header is no text")?);
            }
            rest = &rest[end + 1..];
        }
        ensure!(
            words[0] == "P6" && words[3] == "255",
            "not a PPM of 8 bits a sample"
        );
        let width = words[1].parse().context("the PPM's width")?;
        let height = words[2].parse().context("the PPM's height")?;
        Self::from_rgb(width, height, rest.to_vec())
    }

    /// Takes pixels of four bytes (red, green, blue, alpha), as a browser's canvas gives them.
    pub fn from_rgba(width: u32, height: u32, rgba: &[u8]) -> Result<Self> {
        let rgb = rgba
            .chunks(4)
            .flat_map(|pixel| &pixel[..pixel.len().min(3)])
            .copied()
            .collect();
        Self::from_rgb(width, height, rgb)
    }

    /// The pixels with an alpha of 255 each.
    pub fn to_rgba(&self) -> Vec<u8> {
        self.rgb
            .chunks_exact(BYTES_PER_PIXEL)
            .flat_map(|pixel| [pixel[0], pixel[1], pixel[2], u8::MAX])
            .collect()
    }

    fn from_rgb(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        let expected = width as usize * height as usize * BYTES_PER_PIXEL;
        ensure!(
            rgb.len() == expected && expected > 0,
            "{} bytes are no picture of {width} x {height}",
            rgb.len()
        );
        Ok(Self { width, height, rgb })
    }

    /// How many pixels differ; all of the larger picture when the sizes differ.
    pub fn differing_pixels(&self, other: &Self) -> usize {
        if (self.width, self.height) != (other.width, other.height) {
            return self.rgb.len().max(other.rgb.len()) / BYTES_PER_PIXEL;
        }
        self.rgb
            .chunks_exact(BYTES_PER_PIXEL)
            .zip(other.rgb.chunks_exact(BYTES_PER_PIXEL))
            .filter(|(one, two)| one != two)
            .count()
    }

    /// How many colours it has: 1 for a screen of nothing, 2 for plain text.
    pub fn colours(&self) -> usize {
        self.rgb
            .chunks_exact(BYTES_PER_PIXEL)
            .collect::<HashSet<_>>()
            .len()
    }

    /// Saves it as a PNG, with the folders that lead there.
    pub fn save_png(&self, path: &Path) -> Result<()> {
        let attempt = || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut encoder =
                png::Encoder::new(BufWriter::new(File::create(path)?), self.width, self.height);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&self.rgb)?;
            anyhow::Ok(writer.finish()?)
        };
        attempt().with_context(|| format!("saving {}", path.display()))
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Picture({} x {}, {} colours)",
            self.width,
            self.height,
            self.colours()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn red_and_blue() -> Picture {
        Picture::from_rgba(2, 1, &[255, 0, 0, 255, 0, 0, 255, 255]).unwrap()
    }

    #[test]
    fn a_ppm_is_read() {
        let read = Picture::from_ppm(b"P6\n2 1\n255\n\xff\0\0\0\0\xff").unwrap();
        assert_eq!(read, red_and_blue());
    }

    #[test]
    fn broken_ppms_are_refused() {
        for broken in [
            &b""[..],
            b"P6\n2 1\n255",
            b"P5\n1 1\n255\n\0",
            b"P6\n2 1\n255\n\xff\0\0",
        ] {
            assert!(Picture::from_ppm(broken).is_err());
        }
    }

    #[test]
    fn differing_pixels_are_counted() {
        let picture = red_and_blue();
        let mut other = picture.clone();
        assert_eq!(picture.differing_pixels(&other), 0);
        other.rgb[4] = 7;
        assert_eq!(picture.differing_pixels(&other), 1);
        let larger = Picture::from_rgba(1, 3, &[0; 12]).unwrap();
        assert_eq!(picture.differing_pixels(&larger), 3);
    }

    #[test]
    fn a_png_holds_the_same_pixels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/picture.png");
        red_and_blue().save_png(&path).unwrap();
        let file = std::io::BufReader::new(File::open(path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, red_and_blue().rgb);
    }

    #[test]
    fn alpha_comes_and_goes() {
        let picture = red_and_blue();
        assert_eq!(
            Picture::from_rgba(2, 1, &picture.to_rgba()).unwrap(),
            picture
        );
    }
}
