//! The X program: redraws noise all the time, and answers each key at once with a rectangle that
//! can be told from everything else on the screen.
//!
//! Noise is what Spice servers neither compress nor take for a video, whose rate they would adapt
//! to the line: a picture takes four bytes a pixel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use testkit::rng::Rng;
use x11rb::connection::Connection;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{
    ChangeGCAux, ConnectionExt as _, CreateGCAux, CreateWindowAux, EventMask, Gcontext,
    ImageFormat, InputFocus, Rectangle, Screen, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

/// Pictures a second, as usual screens show them.
const FRAME: Duration = Duration::from_micros(16_667);
/// How soon the thread sees that it shall end, while nothing happens.
const IDLE: Duration = Duration::from_millis(100);
/// Where answers are: below all noise. Each is a pixel wider than the one before.
const ANSWER: Rectangle = Rectangle {
    x: 8,
    y: 600,
    width: 100,
    height: 24,
};
/// Small pictures: how large, how many in a row and in a column, and how far apart.
const TILE: u16 = 42;
const TILES: i16 = 4;
const TILE_STEP: i16 = 80;
const BYTES_PER_PIXEL: usize = 4;

/// What is redrawn all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Nothing.
    Idle,
    /// A picture of this width and height.
    Picture(u16, u16),
    /// 16 pictures of 42 x 42.
    Tiles,
}

impl Load {
    fn places(self) -> Vec<Rectangle> {
        let at = |x, y, width, height| Rectangle {
            x,
            y,
            width,
            height,
        };
        match self {
            Self::Idle => Vec::new(),
            Self::Picture(width, height) => vec![at(0, 0, width, height)],
            Self::Tiles => (0..TILES * TILES)
                .map(|tile| {
                    let (column, row) = (tile % TILES, tile / TILES);
                    at(column * TILE_STEP, row * TILE_STEP, TILE, TILE)
                })
                .collect(),
        }
    }
}

/// Where the answer to the key of this number, from 0 on, is: left, top, right, bottom.
pub(super) fn answer(number: u16) -> [u32; 4] {
    let place = answer_place(number);
    let (left, top) = (place.x.unsigned_abs(), place.y.unsigned_abs());
    [left, top, left + place.width, top + place.height].map(u32::from)
}

fn answer_place(number: u16) -> Rectangle {
    Rectangle {
        width: ANSWER.width + number,
        ..ANSWER
    }
}

/// The running program; it ends when this is dropped.
pub(super) struct Animation {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Animation {
    /// Starts it on the display of this number; it gets all keys when this returns.
    pub(super) fn start(display: u32, load: Load) -> Result<Self> {
        let mut program = Program::open(&format!(":{display}"), load)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            // What ends it early ends the answers, so it is noticed.
            let _ = program.run(&stopped);
        };
        let thread = thread::Builder::new()
            .name("animation".to_owned())
            .spawn(run);
        Ok(Self {
            stop,
            thread: Some(thread.context("a thread for the animation")?),
        })
    }
}

impl Drop for Animation {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed already.
            let _ = thread.join();
        }
    }
}

struct Program {
    connection: RustConnection,
    depth: u8,
    window: Window,
    context: Gcontext,
    places: Vec<Rectangle>,
    keys: u16,
    rng: Rng,
    pixels: Vec<u8>,
}

impl Program {
    /// Opens a window that covers the screen and has the keyboard.
    fn open(display: &str, load: Load) -> Result<Self> {
        let (connection, screen) = x11rb::connect(Some(display))
            .with_context(|| format!("connecting to the X server {display}"))?;
        let screen = connection.setup().roots[screen].clone();
        let window = open_window(&connection, &screen)?;
        let context = connection.generate_id()?;
        connection.create_gc(context, window, &CreateGCAux::new())?;
        connection.sync()?;
        Ok(Self {
            connection,
            depth: screen.root_depth,
            window,
            context,
            places: load.places(),
            keys: 0,
            rng: Rng::new(1),
            pixels: Vec::new(),
        })
    }

    fn run(&mut self, stop: &AtomicBool) -> Result<()> {
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            self.answer_keys()?;
            let now = Instant::now();
            if self.places.is_empty() {
                self.wait(IDLE)?;
            } else if now < next {
                self.wait(next - now)?;
            } else {
                next = now + FRAME;
                self.draw()?;
            }
        }
        Ok(())
    }

    fn answer_keys(&mut self) -> Result<()> {
        while let Some(event) = self.connection.poll_for_event()? {
            if matches!(event, Event::KeyPress(_)) {
                let place = answer_place(self.keys);
                // Another colour each time, so that it is never there already.
                let colour = ChangeGCAux::new().foreground(0x0040_80ff + u32::from(self.keys));
                self.connection.change_gc(self.context, &colour)?;
                self.connection
                    .poly_fill_rectangle(self.window, self.context, &[place])?;
                self.connection.flush()?;
                self.keys += 1;
            }
        }
        Ok(())
    }

    /// Draws all pictures once and waits until the server has taken them.
    fn draw(&mut self) -> Result<()> {
        for place in &self.places {
            let pixels = usize::from(place.width) * usize::from(place.height);
            self.pixels.clear();
            while self.pixels.len() < pixels * BYTES_PER_PIXEL {
                self.pixels.extend(self.rng.next().to_le_bytes());
            }
            self.connection.put_image(
                ImageFormat::Z_PIXMAP,
                self.window,
                self.context,
                place.width,
                place.height,
                place.x,
                place.y,
                0,
                self.depth,
                &self.pixels[..pixels * BYTES_PER_PIXEL],
            )?;
        }
        self.connection.sync()?;
        Ok(())
    }

    /// Waits until the server says something, at most this long.
    fn wait(&self, time: Duration) -> Result<()> {
        let mut polled = [PollFd::new(self.connection.stream(), PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::try_from(time)?))?;
        Ok(())
    }
}

fn open_window(connection: &RustConnection, screen: &Screen) -> Result<Window> {
    let window = connection.generate_id()?;
    let wanted = CreateWindowAux::new()
        .background_pixel(screen.black_pixel)
        .override_redirect(1)
        .event_mask(EventMask::KEY_PRESS);
    connection.create_window(
        screen.root_depth,
        window,
        screen.root,
        0,
        0,
        screen.width_in_pixels,
        screen.height_in_pixels,
        0,
        WindowClass::INPUT_OUTPUT,
        screen.root_visual,
        &wanted,
    )?;
    connection.map_window(window)?;
    let focus = connection.set_input_focus(InputFocus::PARENT, window, x11rb::CURRENT_TIME)?;
    focus.check().context("taking the keyboard")?;
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_differ_and_lie_outside_the_noise() {
        assert_eq!(answer(0), [8, 600, 108, 624]);
        assert_ne!(answer(1), answer(2));
        for load in [Load::Idle, Load::Picture(512, 384), Load::Tiles] {
            for place in load.places() {
                let bottom = place.y.unsigned_abs() + place.height;
                assert!(bottom <= ANSWER.y.unsigned_abs(), "{load:?}");
            }
        }
        assert_eq!(Load::Tiles.places().len(), 16);
    }
}
