//! Short messages between processes, with a descriptor in them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
    },
};

use serde::{Serialize, de::DeserializeOwned};

/// Longest message.
pub const MOST: usize = 4096;

/// Two ends; what is sent at one arrives whole at the other.
///
/// # Errors
/// No descriptors to be had.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Sends a message, with a descriptor if there is one.
///
/// # Errors
/// `EPIPE`: the other end is closed. `EMSGSIZE`: it is longer than a socket takes.
pub fn send(socket: impl AsFd, message: &[u8], descriptor: Option<RawFd>) -> io::Result<()> {
    let descriptors: Vec<RawFd> = descriptor.into_iter().collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    loop {
        let parts = [IoSlice::new(message)];
        match sendmsg::<()>(
            socket.as_fd().as_raw_fd(),
            &parts,
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives a message of at most [`MOST`] bytes; `None` when the other end is closed.
///
/// # Errors
/// `InvalidData`: it is longer. Otherwise what `recvmsg` says.
pub fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut bytes = vec![0; MOST];
    let (length, descriptor, flags) = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut space = cmsg_space!([RawFd; 1]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(message) => {
                let mut passed = None;
                for control in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(descriptors) = control {
                        for descriptor in descriptors {
                            // SAFETY: the kernel has just made this descriptor for this process, and nothing else knows its number.
                            passed = Some(unsafe { OwnedFd::from_raw_fd(descriptor) });
                        }
                    }
                }
                break (message.bytes, passed, message.flags);
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    if flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message longer than agreed",
        ));
    }
    if length == 0 {
        return Ok(None);
    }
    bytes.truncate(length);
    Ok(Some((bytes, descriptor)))
}

/// Sends a value, with a descriptor if there is one.
///
/// # Errors
/// As [`send`].
pub fn say<T: Serialize>(socket: impl AsFd, value: &T, descriptor: Option<RawFd>) -> io::Result<()> {
    send(socket, &serde_json::to_vec(value)?, descriptor)
}

/// Receives a value; `None` when the other end is closed.
///
/// # Errors
/// As [`receive`]; `InvalidData` also for what is no such value.
pub fn hear<T: DeserializeOwned>(socket: impl AsFd) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let Some((bytes, descriptor)) = receive(socket)? else {
        return Ok(None);
    };
    Ok(Some((serde_json::from_slice(&bytes)?, descriptor)))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptor_and_the_end_is_told() {
        let (one, other) = pair().unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, b"content").unwrap();
        let opened = file.reopen().unwrap();
        send(&one, b"hello", Some(opened.as_raw_fd())).unwrap();
        send(&one, b"again", None).unwrap();
        let (bytes, descriptor) = receive(&other).unwrap().unwrap();
        assert_eq!(bytes, b"hello");
        let mut text = String::new();
        std::fs::File::from(descriptor.unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "content");
        assert!(receive(&other).unwrap().unwrap().1.is_none());
        drop(one);
        assert!(receive(&other).unwrap().is_none());
        assert!(send(&other, b"x", None).is_err());
    }
}
