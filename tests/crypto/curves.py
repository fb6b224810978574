"""The two curves in plain arithmetic, slow and without a library: to make signatures that no honest signer makes."""

from __future__ import annotations

import functools
import hashlib

Point = tuple[int, int]


class Edwards25519:
    """The curve of Ed25519 (RFC 8032, section 5.1)."""

    P = 2**255 - 19
    L = 2**252 + 27742317777372353535851937790883648493
    D = -121665 * pow(121666, -1, P) % P
    BASE: Point = (
        15112221349535400772501151409588531511454012693041857206046113283949847762202,
        46316835694926478169428394003475163141307993866256225615783033603165251855960,
    )
    IDENTITY: Point = (0, 1)

    @classmethod
    def add(cls, a: Point, b: Point) -> Point:
        """The sum of two points (RFC 8032, section 5.1.4)."""
        (x1, y1), (x2, y2) = a, b
        product = cls.D * x1 * x2 * y1 * y2
        return (
            (x1 * y2 + x2 * y1) * pow(1 + product, -1, cls.P) % cls.P,
            (y1 * y2 + x1 * x2) * pow(1 - product, -1, cls.P) % cls.P,
        )

    @classmethod
    def multiply(cls, number: int, point: Point) -> Point:
        """``number`` times ``point``."""
        result = cls.IDENTITY
        while number:
            if number & 1:
                result = cls.add(result, point)
            point, number = cls.add(point, point), number >> 1
        return result

    @classmethod
    def x_of(cls, y: int) -> int | None:
        """An x for this y, where the curve has such a point."""
        square = (y * y - 1) * pow(cls.D * y * y + 1, -1, cls.P) % cls.P
        x = pow(square, (cls.P + 3) // 8, cls.P)
        if x * x % cls.P != square:
            x = x * pow(2, (cls.P - 1) // 4, cls.P) % cls.P
        return x if x * x % cls.P == square else None

    @classmethod
    @functools.cache
    def torsion(cls) -> tuple[Point, ...]:
        """The eight points T with 8 T = 0: the multiples 0 to 7 of one of order 8."""
        for y in range(2, 1000):
            x = cls.x_of(y)
            if x is None:
                continue
            generator = cls.multiply(cls.L, (x, y))
            found = [cls.IDENTITY]
            while len(found) < 8:
                found.append(cls.add(found[-1], generator))
            if len(set(found)) == 8:
                return tuple(found)
        raise AssertionError("no point of order 8")

    @staticmethod
    def encode(point: Point) -> bytes:
        """The 32 bytes of a point."""
        x, y = point
        return (y | (x & 1) << 255).to_bytes(32, "little")

    @classmethod
    def challenge(cls, r: bytes, key: bytes, data: bytes) -> int:
        """The h of a signature, not reduced."""
        return int.from_bytes(hashlib.sha512(r + key + data).digest(), "little")


class Secp256k1:
    """The curve of Bitcoin (SEC 2, section 2.4.1); None is the point at infinity."""

    P = 2**256 - 2**32 - 977
    N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    BASE: Point = (
        0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
        0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
    )

    @classmethod
    def add(cls, a: Point | None, b: Point | None) -> Point | None:
        """The sum of two points."""
        if a is None or b is None:
            return a or b
        (x1, y1), (x2, y2) = a, b
        if x1 == x2 and (y1 + y2) % cls.P == 0:
            return None
        slope = 3 * x1 * x1 * pow(2 * y1, -1, cls.P) if a == b else (y2 - y1) * pow(x2 - x1, -1, cls.P)
        x3 = (slope * slope - x1 - x2) % cls.P
        return x3, (slope * (x1 - x3) - y1) % cls.P

    @classmethod
    def multiply(cls, number: int, point: Point | None) -> Point | None:
        """``number`` times ``point``."""
        result: Point | None = None
        while number:
            if number & 1:
                result = cls.add(result, point)
            point, number = cls.add(point, point), number >> 1
        return result

    @classmethod
    def lift(cls, x: int) -> Point | None:
        """The point with this x and an even y, where there is one."""
        y = pow(x**3 + 7, (cls.P + 1) // 4, cls.P)
        if (y * y - x**3 - 7) % cls.P:
            return None
        return x, y if y % 2 == 0 else cls.P - y

    @staticmethod
    def encode(point: Point) -> bytes:
        """The 33 bytes of a point."""
        x, y = point
        return bytes((2 + (y & 1),)) + x.to_bytes(32, "big")

    @staticmethod
    def challenge(data: bytes) -> int:
        """The h of a signature."""
        return int.from_bytes(hashlib.sha256(data).digest(), "big")
