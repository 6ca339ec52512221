//! The messages of `proto/` as tables of a Rust source: what their fields are called, how they are
//! encoded, and which of them exclude each other.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

type Failed = Box<dyn Error>;

/// Where messages and enums stand in their tables, by full name.
#[derive(Default)]
struct Names<'d> {
    messages: Vec<(String, &'d DescriptorProto)>,
    enums: Vec<(String, &'d EnumDescriptorProto)>,
    message_places: HashMap<String, usize>,
    enum_places: HashMap<String, usize>,
}

impl<'d> Names<'d> {
    fn add(&mut self, scope: &str, message: &'d DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        self.message_places.insert(name.clone(), self.messages.len());
        self.messages.push((name.clone(), message));
        for nested in &message.enum_type {
            self.add_enum(&name, nested);
        }
        for nested in &message.nested_type {
            self.add(&name, nested);
        }
    }

    fn add_enum(&mut self, scope: &str, described: &'d EnumDescriptorProto) {
        let name = format!("{scope}.{}", described.name());
        self.enum_places.insert(name.clone(), self.enums.len());
        self.enums.push((name, described));
    }
}

/// The source text: three slices, of messages, of enums and of RPCs.
pub fn render(descriptors: &FileDescriptorSet) -> Result<String, Failed> {
    let mut names = Names::default();
    for file in &descriptors.file {
        let scope = format!(".{}", file.package());
        for message in &file.message_type {
            names.add(&scope, message);
        }
        for described in &file.enum_type {
            names.add_enum(&scope, described);
        }
    }
    let mut out = String::from("/// Every message.\npub static MESSAGES: &[Message] = &[\n");
    for (name, message) in &names.messages {
        render_message(&mut out, &names, name, message)?;
    }
    out.push_str("];\n/// Every enum.\npub static ENUMS: &[Enum] = &[\n");
    for (_, described) in &names.enums {
        out.push_str("    Enum { values: &[");
        for value in &described.value {
            write!(out, "({:?}, {}), ", value.name(), value.number())?;
        }
        out.push_str("] },\n");
    }
    out.push_str(
        "];\n/// Request and answer of every RPC, by path.\npub static RPCS: &[Rpc] = &[\n",
    );
    for file in &descriptors.file {
        for service in &file.service {
            for rpc in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), rpc.name());
                let request = names.message_places[rpc.input_type()];
                let answer = names.message_places[rpc.output_type()];
                writeln!(
                    out,
                    "    Rpc {{ path: {path:?}, request: {request}, answer: {answer} }},"
                )?;
            }
        }
    }
    out.push_str("];\n");
    Ok(out)
}

fn render_message(
    out: &mut String,
    names: &Names<'_>,
    name: &str,
    message: &DescriptorProto,
) -> Result<(), Failed> {
    let name = &name[1..];
    write!(out, "    Message {{ name: {name:?}, oneofs: &[")?;
    for oneof in &message.oneof_decl {
        write!(out, "\"{name}.{}\", ", oneof.name())?;
    }
    out.push_str("], fields: &[\n");
    for field in &message.field {
        let (number, field_name) = (field.number(), field.name());
        let camel = camel_case(field_name);
        let kind = kind_of(names, field)?;
        let repeated = field.label() == Label::Repeated;
        let oneof = field.oneof_index.map(usize::try_from).transpose()?;
        writeln!(
            out,
            "        Field {{ number: {number}, name: {field_name:?}, camel_name: {camel:?}, \
             kind: {kind}, repeated: {repeated}, oneof: {oneof:?} }},"
        )?;
    }
    out.push_str("    ] },\n");
    Ok(())
}

fn kind_of(names: &Names<'_>, field: &FieldDescriptorProto) -> Result<String, Failed> {
    Ok(match field.r#type() {
        Type::Int32 => "Kind::Int32".into(),
        Type::Int64 => "Kind::Int64".into(),
        Type::Uint32 => "Kind::Uint32".into(),
        Type::Uint64 => "Kind::Uint64".into(),
        Type::Bool => "Kind::Bool".into(),
        Type::String => "Kind::String".into(),
        Type::Bytes => "Kind::Bytes".into(),
        Type::Enum => format!("Kind::Enum({})", names.enum_places[field.type_name()]),
        Type::Message => format!("Kind::Message({})", names.message_places[field.type_name()]),
        other => return Err(format!("{} is {other:?}: teach the gateway", field.name()).into()),
    })
}

/// What protobuf calls a field in JSON.
fn camel_case(name: &str) -> String {
    let mut camel = String::new();
    let mut is_upper = false;
    for letter in name.chars() {
        if letter == '_' {
            is_upper = true;
        } else if std::mem::take(&mut is_upper) {
            camel.push(letter.to_ascii_uppercase());
        } else {
            camel.push(letter);
        }
    }
    camel
}
