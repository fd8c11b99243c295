//! What is written is read again; what is damaged is refused.

use super::*;

const METHOD: Method<'static> = Method {
    destination: "a.b",
    path: "/a/b",
    interface: "a.b.C",
    name: "Do",
};

/// A call is a message as any other; what is read of it is what was written.
fn check(arguments: &[Value]) {
    let message = call(METHOD, 7, arguments);
    let start = message.first_chunk().expect("a header");
    let rest = rest_of(start).expect("a length");
    assert_eq!(START_BYTES + rest, message.len());
    assert_eq!(read(&message).expect("a message").body, arguments);
}

fn everything() -> Vec<Value> {
    let empty = Value::Array {
        of: "(sa(sv))".to_owned(),
        items: Vec::new(),
    };
    vec![
        Value::Byte(1),
        Value::Int64(-2),
        Value::Bool(true),
        Value::Uint16(3),
        Value::Double(0.5),
        Value::text("text"),
        Value::Path("/path".to_owned()),
        Value::Signature("a{sv}".to_owned()),
        Value::texts(&["one", "", "three"]),
        empty,
        Value::Struct(vec![Value::Int16(-4)]),
        Value::Struct(vec![Value::Byte(5), Value::Uint64(6)]),
        Value::properties(&[("list", Value::texts(&[])), ("number", Value::Int32(-7))]),
        Value::Variant(Box::new(Value::Variant(Box::new(Value::Uint32(8))))),
    ]
}

#[test]
fn values_are_read_as_they_were_written() {
    check(&[]);
    check(&everything());
    for value in everything() {
        check(&[Value::Byte(0), value]);
    }
}

#[test]
fn a_call_is_laid_out_as_specified() {
    let message = call(METHOD, 1, &[Value::text("x")]);
    let expect: &[u8] = b"l\x01\x02\x01\x06\0\0\0\x01\0\0\0\x47\0\0\0\
        \x01\x01o\0\x04\0\0\0/a/b\0\0\0\0\
        \x02\x01s\0\x05\0\0\0a.b.C\0\0\0\
        \x03\x01s\0\x02\0\0\0Do\0\0\0\0\0\0\
        \x06\x01s\0\x03\0\0\0a.b\0\0\0\0\0\
        \x08\x01g\0\x01s\0\0\
        \x01\0\0\0x\0";
    assert_eq!(message, expect);
}

#[test]
fn damaged_messages_are_refused_and_break_nothing() {
    let message = call(METHOD, 7, &everything());
    for end in 0..message.len() {
        assert!(read(&message[..end]).is_err(), "{end}");
    }
    for at in 0..message.len() {
        for bit in 0..8 {
            let mut damaged = message.clone();
            damaged[at] ^= 1 << bit;
            // Some bits make another message; none may panic or take forever.
            let _ = read(&damaged);
        }
    }
    let nested = "v".repeat(3);
    assert!(first_type(&nested, 0).is_ok());
    assert!(first_type(&"a".repeat(200), 0).is_err());
    assert!(first_type("(s", 0).is_err());
}
