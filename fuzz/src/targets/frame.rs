//! Frames of a session.

use anabranch_core::riblt::SYMBOLS;
use anabranch_sync::frame::{
    Ask, BATCH_BYTES, DATA_BYTES, Frame, HASHES, Request, SAMPLES, TEXT_BYTES, TIPS_PER_FRAME,
};

/// One frame. All have one spelling, but for what a later version may say in a greeting or as the reason for an end.
pub(crate) fn run(data: &[u8]) {
    let Ok(frame) = Frame::decode(data) else { return };
    let encoded = frame.encode();
    if matches!(frame, Frame::Hello { .. } | Frame::Refused { .. } | Frame::Bye { .. }) {
        assert!(encoded.len() <= data.len());
    } else {
        assert_eq!(encoded, data, "a frame has one spelling");
    }
    assert_eq!(Frame::decode(&encoded).as_ref(), Ok(&frame));
    assert!(within_limits(&frame), "{frame:?}");
}

fn within_limits(frame: &Frame) -> bool {
    match frame {
        Frame::Tips { tips, .. } => tips.len() <= TIPS_PER_FRAME,
        Frame::Fork { samples, .. } => samples.len() <= SAMPLES,
        Frame::Batch { raw, bytes, .. } => {
            *raw as usize <= BATCH_BYTES && bytes.len() <= DATA_BYTES
        }
        Frame::Blob { bytes, .. } => bytes.len() <= DATA_BYTES,
        Frame::Want { hashes, .. } | Frame::NoBlob { hashes, .. } | Frame::Have { hashes, .. } => {
            hashes.len() <= HASHES
        }
        Frame::Symbols { symbols, .. } => symbols.len() <= SYMBOLS,
        Frame::Ask { what: Ask::Named(elements), .. } => elements.len() <= SYMBOLS,
        Frame::Named { tips, .. } => tips.len() <= SYMBOLS,
        Frame::Open { request: Some(Request { text, .. }), .. }
        | Frame::Refused { text, .. }
        | Frame::Bye { text, .. } => text.len() <= TEXT_BYTES,
        _ => true,
    }
}
