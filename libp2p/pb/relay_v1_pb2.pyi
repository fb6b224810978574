from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Peer(_message.Message):
    __slots__ = ("id", "addrs")
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRS_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    addrs: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, id: _Optional[bytes] = ..., addrs: _Optional[_Iterable[bytes]] = ...) -> None: ...

class CircuitRelay(_message.Message):
    __slots__ = ("type", "src_peer", "dst_peer", "code")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SRC_PEER_FIELD_NUMBER: _ClassVar[int]
    DST_PEER_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    type: int
    src_peer: Peer
    dst_peer: Peer
    code: int
    def __init__(self, type: _Optional[int] = ..., src_peer: _Optional[_Union[Peer, _Mapping]] = ..., dst_peer: _Optional[_Union[Peer, _Mapping]] = ..., code: _Optional[int] = ...) -> None: ...
