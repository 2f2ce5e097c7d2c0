"""WebSockets: the handshake, the frames, what they carry."""
