//! Messages as libdbus and dbus-daemon wrote them, recorded with `dbus-monitor --binary`.

use super::*;

/// `dbus-send … org.nvmexpress.staf.list_controllers boolean:true`, as the bus passed it on.
pub(crate) const CALL: &[u8] = b"l\x01\x00\x01\x04\x00\x00\x00\x02\x00\x00\x00\x95\x00\x00\x00\
    \x01\x01o\x00\x14\x00\x00\x00/org/nvmexpress/staf\x00\x00\x00\x00\
    \x02\x01s\x00\x13\x00\x00\x00org.nvmexpress.staf\x00\x00\x00\x00\x00\
    \x03\x01s\x00\x10\x00\x00\x00list_controllers\x00\x00\x00\x00\x00\x00\x00\x00\
    \x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00\
    \x08\x01g\x00\x01b\x00\x00\x07\x01s\x00\x04\x00\x00\x00:1.1\x00\x00\x00\x00\x01\x00\x00\x00";

/// An error of dbus-daemon.
const ERROR: &[u8] = b"l\x03\x01\x01F\x00\x00\x00\x03\x00\x00\x00u\x00\x00\x00\
    \x06\x01s\x00\x04\x00\x00\x00:1.1\x00\x00\x00\x00\
    \x04\x01s\x00+\x00\x00\x00org.freedesktop.DBus.Error.UnknownInterface\x00\x00\x00\x00\x00\
    \x05\x01u\x00\x02\x00\x00\x00\x08\x01g\x00\x01s\x00\x00\
    \x07\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00\
    A\x00\x00\x00org.freedesktop.DBus does not understand message list_controllers\x00";

#[test]
fn frames_and_parses_what_others_wrote() {
    for frame in [CALL, ERROR] {
        for length in 0..frame.len() {
            let seen = frame_length(&frame[..length], MESSAGE_MAX).unwrap();
            assert_eq!(seen, (length >= 16).then_some(frame.len()), "{length} bytes");
        }
    }
    let call = parse(CALL).unwrap().unwrap();
    assert_eq!(call.dynheader.member.as_deref(), Some("list_controllers"));
    assert_eq!(call.dynheader.object.as_deref(), Some("/org/nvmexpress/staf"));
    assert_eq!((call.get_sig(), call.body.parser().get::<bool>()), ("b", Ok(true)));
    assert!(expects_reply(&call));
    let error = parse(ERROR).unwrap().unwrap();
    assert_eq!(error.typ, MessageType::Error);
    assert!(error_text(&error).starts_with("org.freedesktop.DBus.Error.UnknownInterface: org.freedesktop.DBus does"));
}

#[test]
fn writes_the_call_that_libdbus_writes() {
    let mut ours = call("org.freedesktop.DBus", "/org/nvmexpress/staf", "org.nvmexpress.staf", "list_controllers");
    ours.body.push_param(true).unwrap();
    // Fields may come in any order, and the sender is the bus's to add.
    let written = parse(&encode(&ours, 2).unwrap()).unwrap().unwrap();
    let captured = parse(CALL).unwrap().unwrap();
    assert_eq!(written.dynheader.destination, captured.dynheader.destination);
    assert_eq!(written.dynheader.interface, captured.dynheader.interface);
    assert_eq!(written.get_buf(), captured.get_buf());
    assert_eq!(written.flags, NO_AUTO_START);
}

#[test]
fn an_error_reply_names_its_error() {
    let captured = parse(CALL).unwrap().unwrap();
    let bytes = encode(&error(&captured.dynheader, "org.freedesktop.DBus.Error.UnknownMethod", "no such"), 9).unwrap();
    let expected: &[u8] = b"l\x03\x00\x01\x0c\x00\x00\x00\x09\x00\x00\x00Q\x00\x00\x00\
        \x05\x01u\x00\x02\x00\x00\x00\x06\x01s\x00\x04\x00\x00\x00:1.1\x00\x00\x00\x00\
        \x08\x01g\x00\x01s\x00\x00\
        \x04\x01s\x00(\x00\x00\x00org.freedesktop.DBus.Error.UnknownMethod\x00\x00\x00\x00\x00\x00\x00\x00\
        \x07\x00\x00\x00no such\x00";
    assert_eq!(bytes.len() % 8, expected.len() % 8);
    let parsed = parse(&bytes).unwrap().unwrap();
    assert_eq!(parsed.typ, MessageType::Error);
    assert_eq!(error_text(&parsed), "org.freedesktop.DBus.Error.UnknownMethod: no such");
    assert_eq!(frame_length(&bytes, MESSAGE_MAX), Ok(Some(bytes.len())));
    #[cfg(target_endian = "little")]
    assert_eq!(bytes, expected);
}

#[test]
fn dictionaries_keep_their_order() {
    let mut message = MarshalledMessage::new();
    message.body.push_param(vec![Dict(vec![("z", "1"), ("a", "22")]), Dict(vec![])]).unwrap();
    assert_eq!(message.get_sig(), "aa{ss}");
    #[cfg(target_endian = "little")]
    assert_eq!(
        message.get_buf(),
        b"\x2c\0\0\0\x1f\0\0\0\x01\0\0\0z\0\0\0\x01\0\0\x001\0\0\0\x01\0\0\0a\0\0\0\x02\0\0\x0022\0\0\0\0\0\0\0\0\0\0"
    );
    let back: Vec<Dict<String, String>> = message.body.parser().get().unwrap();
    assert_eq!(back[0].0, [("z".to_owned(), "1".to_owned()), ("a".to_owned(), "22".to_owned())]);
    assert_eq!(back.len(), 2);
    let mut properties = MarshalledMessage::new();
    let pairs = vec![("tron", Value::Bool(true)), ("log_level", Value::Text("INFO".into()))];
    properties.body.push_param(Dict(pairs)).unwrap();
    assert_eq!(properties.get_sig(), "a{sv}");
    properties.unmarshall_all().unwrap();
}

#[test]
fn absurd_frames_are_refused() {
    assert!(frame_length(b"GET / HTTP/1.1\r\n", MESSAGE_MAX).is_err());
    assert!(frame_length(b"l\x01\0\x02\0\0\0\0\x01\0\0\0\0\0\0\0", MESSAGE_MAX).is_err());
    assert!(frame_length(b"l\x01\0\x01\xff\xff\xff\xff\x01\0\0\0\xff\xff\xff\xff", MESSAGE_MAX).is_err());
    assert!(frame_length(CALL, CALL.len() - 1).is_err());
    let mut unknown_type = CALL.to_vec();
    unknown_type[1] = 5;
    assert!(parse(&unknown_type).unwrap().is_none());
    let mut serial_zero = CALL.to_vec();
    serial_zero[8] = 0;
    assert!(parse(&serial_zero).is_err());
}

#[test]
fn no_damage_to_one_byte_does_harm() {
    for frame in [CALL, ERROR] {
        for at in 0..frame.len() {
            for value in 0..=255 {
                let mut damaged = frame.to_vec();
                damaged[at] = value;
                if frame_length(&damaged, MESSAGE_MAX) == Ok(Some(damaged.len()))
                    && let Ok(Some(message)) = parse(&damaged)
                {
                    let _ = message.unmarshall_all();
                }
            }
            let cut = &frame[..at];
            assert!(parse(cut).is_err() || cut.get(1).is_some_and(|&t| t > 4), "{at} bytes");
        }
    }
}

#[test]
fn the_deepest_nesting_that_fits_a_call_is_survived() {
    // An unknown header field that holds a variant in a variant in a variant …: followed by recursion.
    let mut frame = b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x7f".to_vec();
    while frame.len() + 3 <= CALL_MAX - 8 {
        frame.extend_from_slice(b"\x01v\0");
    }
    frame.extend_from_slice(b"\x01y\0\0");
    let fields = (frame.len() - 16) as u32;
    frame[12..16].copy_from_slice(&fields.to_le_bytes());
    frame.resize(frame.len().next_multiple_of(8), 0);
    assert_eq!(frame_length(&frame, CALL_MAX), Ok(Some(frame.len())));
    // A quarter of the smallest stack that a main thread has.
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || parse(&frame).is_err());
    assert!(thread.unwrap().join().unwrap());
}
