"""Bytes that every parser of ours must refuse, and bytes that each must take: the gateway's two lanes and the guest's.

A request is to `/models/hello/predict` or `/health`, so that what refuses it is the parser and not the path.
"""

from __future__ import annotations

POST = b"POST /models/hello/predict HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"

# 400 and a close, whatever comes after.
REFUSED = {
    # Framing that two parsers could read differently
    "both lengths": POST + HOST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both lengths, the other way round": POST
    + HOST
    + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    "two lengths": POST + HOST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "one length twice": POST + HOST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "one length twice, in other letters": POST + HOST + b"Content-Length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "a list of lengths": POST + HOST + b"Content-Length: 2, 2\r\n\r\n{}",
    "an empty length": POST + HOST + b"Content-Length:\r\n\r\n{}",
    "a negative length": POST + HOST + b"Content-Length: -2\r\n\r\n{}",
    "a signed length": POST + HOST + b"Content-Length: +2\r\n\r\n{}",
    "a length in hexadecimal": POST + HOST + b"Content-Length: 0x2\r\n\r\n{}",
    "a length with an underscore": POST + HOST + b"Content-Length: 1_0\r\n\r\n0123456789",
    "a length in other digits": POST + HOST + "Content-Length: ٢\r\n\r\n{}".encode(),
    "a length of twenty digits": POST + HOST + b"Content-Length: 18446744073709551618\r\n\r\n{}",
    "an unknown coding": POST + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked and more": POST + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a coding with a tab": POST + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a coding twice": POST + HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /models/hello/predict HTTP/1.0\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    # Chunks
    "a chunk's size that is none": POST + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "a chunk's size in 0x": POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a negative chunk": POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "an empty chunk size": POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "a chunk without its CRLF": POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{XX0\r\n\r\n",
    "a chunk of more than 64 bits": POST
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a chunk size that ends in a bare LF": POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
    # Lines
    "bare LF": b"POST /models/hello/predict HTTP/1.1\nHost: localhost\nContent-Length: 2\n\n{}",
    "a bare LF among the fields": POST + b"Host: localhost\nContent-Length: 2\r\n\r\n{}",
    "a bare CR in a value": POST + HOST + b"X: a\rb\r\nContent-Length: 2\r\n\r\n{}",
    "a folded field": POST + HOST + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "a folded field, by a tab": POST + HOST + b"X: a\r\n\tb\r\nContent-Length: 2\r\n\r\n{}",
    "a first field that is folded": POST + b" Host: localhost\r\nContent-Length: 2\r\n\r\n{}",
    "space before a colon": POST + HOST + b"Content-Length : 2\r\n\r\n{}",
    "a tab before a colon": POST + HOST + b"Content-Length\t: 2\r\n\r\n{}",
    "space within a name": POST + HOST + b"Content Length: 2\r\n\r\n{}",
    "a field without a name": POST + HOST + b": 2\r\n\r\n",
    "a field without a colon": POST + HOST + b"Content-Length\r\n\r\n",
    "a name in other letters": POST + HOST + "Cöntent: 2\r\n\r\n".encode(),
    "a NUL in a value": POST + HOST + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "a NUL in a name": POST + HOST + b"X\0: a\r\nContent-Length: 2\r\n\r\n{}",
    # The request line
    "no version": b"POST /models/hello/predict\r\n" + HOST + b"\r\n",
    "HTTP/1.2": b"POST /models/hello/predict HTTP/1.2\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two spaces": b"POST  /models/hello/predict HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
    "a method that is no token": b"PO(ST /models/hello/predict HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
    "a space in the target": b"POST /models/hello/predict x HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
    "a NUL in the target": b"POST /models/hello\0/predict HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    # Host
    "two hosts": POST + HOST + HOST + b"Content-Length: 2\r\n\r\n{}",
    # Too much
    "an oversize request line": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "an oversize field": POST + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    "an oversize head": POST + HOST + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 1000) for n in range(100)) + b"\r\n",
}

# 400 and a close of the gateway; the guest's own parser, behind it, need not know.
REFUSED_BY_THE_GATEWAY = {
    "no host": POST + b"Content-Length: 2\r\n\r\n{}",
    "too many fields": POST + HOST + b"".join(b"X-%d: 1\r\n" % n for n in range(2000)) + b"\r\n",
    "a line of 20,000": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "an absolute target": b"GET http://localhost/health HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target that is no path": b"GET health HTTP/1.1\r\n" + HOST + b"\r\n",
    "an authority as target": b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "an asterisk as target": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "a fragment in the target": b"GET /health#part HTTP/1.1\r\n" + HOST + b"\r\n",
    "a compressed body": POST + HOST + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "a model that is a way up": b"POST /models/../predict HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
    "a model that is a quoted way up": b"POST /models/%2e%2E/predict HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 2\r\n\r\n{}",
    "a model with a quoted slash": b"POST /models/a%2fb/predict HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
    "a model with a backslash": b"POST /models/..%5Cb/predict HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
    "a model with a NUL": b"POST /models/hello%00/predict HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
}

# Taken, with the body that follows; what is allowed though rare.
TAKEN = {
    "nothing more than must be": (POST + HOST + b"Content-Length: 2\r\n\r\n{}", b"{}"),
    "no body at all": (POST + HOST + b"\r\n", b""),
    "values without and with much space": (POST + b"Host:localhost\r\nContent-Length: \t 2 \t\r\n\r\n{}", b"{}"),
    "an empty value": (POST + HOST + b"X-Empty:\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
    "names of odd characters": (POST + HOST + b"!#$%&'*+-.^_`|~: x\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
    "bytes beyond ASCII in a value": (POST + HOST + b"X: \xe4\xff\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
    "a query": (POST.replace(b"predict", b"predict?a=b&c=%20/../") + HOST + b"Content-Length: 2\r\n\r\n{}", b"{}"),
    "a length with zeros before": (POST + HOST + b"Content-Length: 0002\r\n\r\n{}", b"{}"),
    "chunks": (POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n01\r\n}\r\n0\r\n\r\n", b"{}"),
    "chunks with extensions": (
        POST + HOST + b'Transfer-Encoding: chunked\r\n\r\n2;name=value;quoted="v"\r\n{}\r\n0;last\r\n\r\n',
        b"{}",
    ),
    "chunks with trailers": (
        POST + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n",
        b"{}",
    ),
    "a coding in capitals": (POST + HOST + b"Transfer-Encoding: CHUNKED\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b"{}"),
    "ninety fields": (
        POST + HOST + b"".join(b"X-%d: 1\r\n" % n for n in range(90)) + b"Content-Length: 2\r\n\r\n{}",
        b"{}",
    ),
}

# Taken by the gateway; what is behind it never meets them.
TAKEN_BY_THE_GATEWAY = {
    "an empty line before": (b"\r\n" + POST + HOST + b"Content-Length: 2\r\n\r\n{}", b"{}"),
    "an upgrade that is none of ours": (
        POST
        + HOST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nContent-Length: 2\r\n\r\n{}",
        b"{}",
    ),
    "an upgrade that is none of ours, with chunks": (
        POST
        + HOST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"{}",
    ),
}

# What aiohttp's parser alone would let through: in the gateway the fast lane has read each head before it does.
BEFORE_AIOHTTP = {"two spaces", "an oversize head"}
