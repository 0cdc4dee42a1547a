//! D-Bus messages as bytes: where one ends, what it says, and how ours are written.
//!
//! rustbus parses and marshals; this module bounds what reaches it and fills the two gaps that its version 0.19 has for a
//! service: it never writes the error name of an error reply, and its dictionaries forget the order of their keys.
//! No I/O here. Nothing a peer sends can make a function of this module panic or allocate more than the frame it sent.
//!
//! Facts: D-Bus Specification, "Message Protocol" and "Type System".

use rustbus::message_builder::{DynamicHeader, MarshalledMessage, MessageType};
use rustbus::signature::{Base, Container, Type};
use rustbus::wire::errors::{MarshalError, UnmarshalError};
use rustbus::wire::marshal::MarshalContext;
use rustbus::wire::marshal::traits::SignatureBuffer;
use rustbus::wire::unmarshal::{
    HEADER_LEN, UnmarshalContext, UnmarshalResult, unmarshal_dynamic_header, unmarshal_header, unmarshal_next_message,
};
use rustbus::wire::util::{insert_u32, pad_to_align, write_string};
use rustbus::{ByteOrder, Marshal, Signature, Unmarshal};

pub use rustbus::message_builder::MarshalledMessage as Message;

/// Longest message that we write, and longest that we read where we asked for it: about 48 000 log page entries as JSON.
/// (The bus itself refuses messages above 32 MiB in its usual configuration.)
pub const MESSAGE_MAX: usize = 16 << 20;

/// Longest message that a client may send on the private socket. The longest sensible call carries seven strings, two of
/// them NQNs: under 2 KiB. The bound also limits how deep variants can nest, which rustbus follows by recursion; on the
/// bus the bus daemon has checked the nesting already.
pub const CALL_MAX: usize = 4096;

/// Bytes of a header up to the header fields: the fixed part and the length of the field array.
const FIXED_HEADER: usize = HEADER_LEN + 4;
/// Field code of the error name.
const ERROR_NAME: u8 = 4;
/// What rustbus writes on this machine.
const NATIVE: ByteOrder = if cfg!(target_endian = "little") { ByteOrder::LittleEndian } else { ByteOrder::BigEndian };
/// Flag: the caller ignores the reply.
const NO_REPLY_EXPECTED: u8 = 1;
/// Flag: do not start a service for this call.
const NO_AUTO_START: u8 = 2;

/// The length in bytes of the message at the start of `buffer`; `None` while too little of it is there to tell.
///
/// # Errors
/// When these bytes are no D-Bus message, or one longer than `limit`.
pub fn frame_length(buffer: &[u8], limit: usize) -> Result<Option<usize>, String> {
    let Some(fixed) = buffer.first_chunk::<FIXED_HEADER>() else {
        return Ok(None);
    };
    let [order, _, _, version, b0, b1, b2, b3, _, _, _, _, f0, f1, f2, f3] = *fixed;
    let number = match order {
        b'l' => u32::from_le_bytes,
        b'B' => u32::from_be_bytes,
        other => return Err(format!("not a D-Bus message: byte order mark {other:#04x}")),
    };
    if version != 1 {
        return Err(format!("D-Bus protocol version {version}, not 1"));
    }
    let (body, fields) = (u64::from(number([b0, b1, b2, b3])), u64::from(number([f0, f1, f2, f3])));
    let length = FIXED_HEADER as u64 + fields.next_multiple_of(8) + body;
    match usize::try_from(length) {
        Ok(length) if length <= limit => Ok(Some(length)),
        _ => Err(format!("a message of {length} bytes, more than the {limit} accepted")),
    }
}

/// Reads a whole message, as delimited by [`frame_length`]. `None` for a message type that this version of the protocol
/// does not know, which has to be ignored.
///
/// # Errors
/// When the message is malformed; the connection is unusable then.
pub fn parse(frame: &[u8]) -> Result<Option<Message>, String> {
    if frame.get(1).is_some_and(|&message_type| message_type > 4) {
        return Ok(None);
    }
    let malformed = |error: UnmarshalError| format!("malformed message: {error}");
    let (_, header) = unmarshal_header(frame, 0).map_err(malformed)?;
    if header.serial == 0 {
        return Err("malformed message: serial number 0".to_owned());
    }
    let (used, fields) = unmarshal_dynamic_header(&header, frame, HEADER_LEN).map_err(malformed)?;
    let (_, message) = unmarshal_next_message(&header, fields, frame, HEADER_LEN + used).map_err(malformed)?;
    Ok(Some(message))
}

/// Writes a whole message.
///
/// # Errors
/// When a header field is not valid, or the message is longer than [`MESSAGE_MAX`].
pub fn encode(message: &Message, serial: u32) -> Result<Vec<u8>, String> {
    let impossible = |error: MarshalError| format!("cannot write a message: {error}");
    let mut bytes = Vec::with_capacity(256);
    rustbus::wire::marshal::marshal(message, serial, &mut bytes).map_err(impossible)?;
    if let Some(name) = &message.dynheader.error_name {
        append_error_name(&mut bytes, name).map_err(impossible)?;
    }
    bytes.extend_from_slice(message.get_buf());
    if bytes.len() > MESSAGE_MAX {
        return Err(format!("a message of {} bytes, more than {MESSAGE_MAX}", bytes.len()));
    }
    Ok(bytes)
}

/// Adds the field that rustbus leaves out to a marshalled header. The header ends aligned to 8 bytes, as fields start.
fn append_error_name(header: &mut Vec<u8>, name: &str) -> Result<(), MarshalError> {
    rustbus::params::validate_errorname(name)?;
    header.extend_from_slice(&[ERROR_NAME, 1, b's', 0]);
    write_string(name, NATIVE, header);
    let fields = header.len().saturating_sub(FIXED_HEADER) as u32;
    if let Some(length) = header.get_mut(HEADER_LEN..FIXED_HEADER) {
        insert_u32(NATIVE, fields, length);
    }
    pad_to_align(8, header);
    Ok(())
}

/// A method call. `NO_AUTO_START` is set: nothing here ever starts a service.
pub fn call(destination: &str, path: &str, interface: &str, member: &str) -> Message {
    let mut message = MarshalledMessage::new();
    message.typ = MessageType::Call;
    message.flags = NO_AUTO_START;
    message.dynheader.destination = Some(destination.to_owned());
    message.dynheader.object = Some(path.to_owned());
    message.dynheader.interface = Some(interface.to_owned());
    message.dynheader.member = Some(member.to_owned());
    message
}

/// A method call to the bus itself.
pub fn bus_call(member: &str) -> Message {
    call(super::BUS_NAME, super::BUS_PATH, super::BUS_NAME, member)
}

/// Says that nobody waits for the answer of a call.
pub fn without_reply(mut message: Message) -> Message {
    message.flags |= NO_REPLY_EXPECTED;
    message
}

/// Whether the caller wants an answer.
pub fn expects_reply(message: &Message) -> bool {
    message.flags & NO_REPLY_EXPECTED == 0
}

/// An error reply to the call with this header.
pub fn error(call: &DynamicHeader, name: &str, text: &str) -> Message {
    let mut message = call.make_error_response(name, None);
    message.typ = MessageType::Error;
    if message.body.push_param(text).is_err() {
        // Text that D-Bus cannot carry (a NUL): the name of the error says enough.
        message.body.reset();
    }
    message
}

/// What an error message says, for people.
pub fn error_text(message: &Message) -> String {
    let name = message.dynheader.error_name.as_deref().unwrap_or("an error without a name");
    match message.body.parser().get::<&str>() {
        Ok(text) => format!("{name}: {text}"),
        Err(_) => name.to_owned(),
    }
}

/// A dictionary whose entries keep their order, `a{ss}` or `a{sv}` by its value type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dict<K, V>(pub Vec<(K, V)>);

impl<K, V: Signature> Signature for Dict<K, V> {
    fn signature() -> Type {
        Type::Container(Container::Dict(Base::String, Box::new(V::signature())))
    }

    fn alignment() -> usize {
        4
    }

    fn sig_str(signature: &mut SignatureBuffer) {
        signature.push_static("a{s");
        V::sig_str(signature);
        signature.push_static("}");
    }

    fn has_sig(signature: &str) -> bool {
        signature.strip_prefix("a{s").is_some_and(V::has_sig)
    }
}

impl<K: AsRef<str>, V: Marshal> Marshal for Dict<K, V> {
    fn marshal(&self, ctx: &mut MarshalContext) -> Result<(), MarshalError> {
        ctx.align_to(4);
        let length_at = ctx.buf.len();
        ctx.buf.extend_from_slice(&[0; 4]);
        ctx.align_to(8);
        let start = ctx.buf.len();
        for (key, value) in &self.0 {
            ctx.align_to(8);
            key.as_ref().marshal(ctx)?;
            value.marshal(ctx)?;
        }
        let length = ctx.buf.len().saturating_sub(start) as u32;
        if let Some(place) = ctx.buf.get_mut(length_at..length_at.saturating_add(4)) {
            insert_u32(ctx.byteorder, length, place);
        }
        Ok(())
    }
}

impl<'buf, 'fds> Unmarshal<'buf, 'fds> for Dict<String, String> {
    fn unmarshal(ctx: &mut UnmarshalContext<'fds, 'buf>) -> UnmarshalResult<Self> {
        let start = ctx.offset;
        let (_, length) = u32::unmarshal(ctx)?;
        ctx.align_to(8)?;
        let end = ctx.offset.saturating_add(length as usize);
        if end > ctx.buf.len() {
            return Err(UnmarshalError::NotEnoughBytesForCollection);
        }
        let mut entries = Vec::new();
        while ctx.offset < end {
            ctx.align_to(8)?;
            let (_, key) = String::unmarshal(ctx)?;
            let (_, value) = String::unmarshal(ctx)?;
            entries.push((key, value));
        }
        Ok((ctx.offset.saturating_sub(start), Dict(entries)))
    }
}

/// The value of a property: a variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    Text(String),
}

impl Signature for Value {
    fn signature() -> Type {
        Type::Container(Container::Variant)
    }

    fn alignment() -> usize {
        1
    }

    fn sig_str(signature: &mut SignatureBuffer) {
        signature.push_static("v");
    }

    fn has_sig(signature: &str) -> bool {
        signature.starts_with('v')
    }
}

impl Marshal for Value {
    fn marshal(&self, ctx: &mut MarshalContext) -> Result<(), MarshalError> {
        match self {
            Value::Bool(value) => value.marshal_as_variant(ctx),
            Value::Text(value) => value.marshal_as_variant(ctx),
        }
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
