"""Functions of the standard library and numpy, and arguments for each: what a worker should give as this process does.

Only functions whose results can be sent, and that do nothing to their process, are here. A few are called in a function
of our own, because what they return has no meaning elsewhere, such as a hash object.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import calendar
import cmath
import collections
import colorsys
import copy
import datetime as dt
import decimal
import difflib
import fractions
import functools
import hashlib
import heapq
import html
import ipaddress
import itertools
import json
import math
import operator
import os.path
import pathlib
import posixpath
import quopri
import random
import re
import reprlib
import shlex
import statistics
import string
import struct
import textwrap
import unicodedata
import urllib.parse
import uuid
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

Values = st.SearchStrategy[Any]


class Case(NamedTuple):
    """A function, whether it yields its results, and what each of its arguments may be."""

    name: str
    function: Callable[..., Any]
    streams: bool
    args: tuple[Values, ...]
    kwargs: dict[str, Values]


# Functions that have a function of the standard library inside.


def digest(name: str, data: bytes) -> bytes:
    return hashlib.new(name, data).digest()


def hmac_of(name: str, password: bytes, salt: bytes) -> bytes:
    return hashlib.pbkdf2_hmac(name, password, salt, 2)


def drawn(seed: int, method: str, *args: Any) -> Any:
    return getattr(random.Random(seed), method)(*args)


def generated(seed: int, method: str, *args: Any) -> Any:
    return getattr(np.random.default_rng(seed), method)(*args)


def groups_of(pattern: str, text: str) -> Any:
    found = re.search(pattern, text)
    return None if found is None else (found.groups(), found.groupdict(), found.span())


def opcodes(one: str, other: str) -> list[Any]:
    return difflib.SequenceMatcher(None, one, other).get_opcodes()


def url_of(text: str) -> urllib.parse.SplitResult | urllib.parse.SplitResultBytes:
    return urllib.parse.urlsplit(text)


def line_of(xs: list[float], ys: list[float]) -> tuple[float, ...]:
    return tuple(statistics.linear_regression(xs, ys))


def address(text: str) -> tuple[str, int, bool]:
    found = ipaddress.ip_address(text)
    return str(found), int(found), found.is_private


def network(text: str) -> list[str]:
    return [str(each) for each in itertools.islice(ipaddress.ip_network(text, strict=False).hosts(), 3)]


def chain_maps(*maps: dict[Any, Any]) -> dict[Any, Any]:
    return dict(collections.ChainMap(*maps))


def counted(one: list[Any], other: list[Any]) -> collections.Counter[Any]:
    return collections.Counter(one) - collections.Counter(other)


def heaped(items: list[Any]) -> list[Any]:
    heapq.heapify(items)
    return items


def pushed(items: list[Any], item: Any) -> list[Any]:
    heapq.heapify(items)
    heapq.heappush(items, item)
    return items


def substituted(template: str, values: dict[str, Any]) -> str:
    return string.Template(template).substitute(values)


def reduced(name: str, items: list[Any]) -> Any:
    return functools.reduce(getattr(operator, name), items)


def month(year: int, number: int) -> tuple[int, int]:
    first, days = calendar.monthrange(year, number)
    return int(first), days


def decimals(name: str, *args: decimal.Decimal) -> Any:
    with decimal.localcontext(prec=12):
        return getattr(args[0], name)(*args[1:])


# What their arguments may be.

small = st.integers(-60, 60)
natural = st.integers(0, 40)
whole = st.integers() | st.sampled_from([0, -1, 1 << 63, -(1 << 63) - 1, 1 << 200])
real = st.floats() | st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324])
finite = st.floats(-1e6, 1e6)
number = whole | real | st.booleans() | st.fractions()
complex_number = st.complex_numbers() | real
text = st.text(max_size=12)
word = (
    st.sampled_from(["", "a", "abc", "Straße", "ǅ", "x\ty", "İ", "a b  c", "1.5", " 12 ", "é\u0301", "\U0001f600"])
    | text
)
data = st.binary(max_size=24)
ints = st.lists(small, max_size=8)
numbers = st.lists(finite | small, max_size=8)
words = st.lists(word, max_size=5)
things = st.lists(small | word | st.none() | st.tuples(small, word), max_size=5)
mapping = st.dictionaries(st.sampled_from("abcd"), small | word, max_size=4)
plain_json = st.recursive(
    st.none() | st.booleans() | whole | real | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3) | st.tuples(inner),
    max_leaves=6,
)
pattern = st.sampled_from(["a", "(a)(b)?", "(?P<x>.)b*", "[", "(?P<x", "a{2,1}", r"\d+", "", "x|", "(?i)S", "*", r"\1"])
dates = st.dates()
moments = st.datetimes(timezones=st.none() | st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=-3))]))
spans = st.timedeltas(dt.timedelta(-400), dt.timedelta(400))
decimals_ = st.decimals(allow_nan=False, places=3, min_value=-(10**6), max_value=10**6)
ratios = st.fractions(max_denominator=1000)
hashes = st.sampled_from(["sha256", "md5", "blake2b", "sha3_224", "none", "SHA1"])
layouts = st.sampled_from(["<i", ">qh", "3s", "d?", "<e", "2x", "!B", "@n", "z", "99999i", ""])
paths = st.sampled_from(["", "/", "a/b.tar.gz", "/a/../b", "./c", "~/d", "//e//f/", "g.", ".h", "é/ü", "a\0b"])
pure = paths.map(pathlib.PurePosixPath)
links = st.sampled_from(
    ["http://a.b:80/c;d?e=f&g#h", "//[::1", "a", "", "HTTP://x:y@z:99999/", "mailto:a@b", "a?b=%zz"]
)
shapes = st.sampled_from([(), (0,), (3,), (2, 2), (2, 3), (1, 2, 2)])
floats = shapes.flatmap(lambda shape: arrays(np.dtype("f8"), shape=shape))
matrices = st.sampled_from([(2, 2), (3, 3), (2, 3), (0, 0), (2,), (2, 2, 2)]).flatmap(
    lambda shape: arrays(np.dtype("f8"), shape=shape, elements=st.floats(-9, 9, width=16))
)
any_array = st.sampled_from(["i1", "u8", "f4", "f8", "c16", "?", "M8[D]", "m8[s]", "U3", "S2"]).flatmap(
    lambda kind: shapes.flatmap(lambda shape: arrays(np.dtype(kind), shape=shape))
)
axis = st.none() | st.integers(-4, 3)
plain_junk: Values = st.one_of(
    st.none(), small, real, word, data, ints, mapping, st.tuples(small, word), st.just(set()), st.just(1j)
)
junk = plain_junk | floats  # not as one more argument: functions write to it, and arrays arrive read-only

_cases: list[Case] = []


def _add(functions: Any, *args: Values, streams: bool = False, **kwargs: Values) -> None:
    for function in functions if isinstance(functions, list) else [functions]:
        owner = getattr(function, "__objclass__", None) or getattr(function, "__self__", None)
        module = getattr(function, "__module__", None) or getattr(owner, "__module__", None) or "numpy"
        name = getattr(function, "__qualname__", None) or function.__name__
        _cases.append(Case(f"{module}.{name}".removeprefix("builtins."), function, streams, args, kwargs))


_add([abs, bin, hex, oct, bool, complex, float, int, repr, str, round, callable], number)
_add([ascii, len, sorted, sum, any, all, max, min, list, tuple], things | numbers | mapping)
_add([divmod, pow], number.filter(lambda n: not isinstance(n, int) or abs(n) < 100), small)
_add([frozenset, set, sum], ints)
_add([format], number, st.sampled_from(["", "x", ".2f", ">8", "e", "_d", "%", "z", ","]))
_add([chr, bytes, bytearray, range], natural)
_add([ord, repr, len], word)
_add([pow], small, natural, small)
_add([dict.fromkeys], words, small)
_add(
    [str.upper, str.casefold, str.title, str.split, str.isidentifier, str.encode, str.swapcase, str.splitlines,
     str.isnumeric, str.expandtabs], word)  # fmt: skip
_add([str.find, str.partition, str.rsplit, str.removeprefix, str.strip, str.count, str.index, str.endswith], word, word)
_add([str.replace], word, word, word)
_add([str.center, str.zfill, str.ljust], word, natural)
_add([str.join], word, words)
_add([str.format], st.sampled_from(["{}", "{0!r:>5}", "{a}", "{", "{:d}", "{0[1]}"]), small | word)
_add([str.format_map], st.sampled_from(["{a}", "{b!r}", "{c:x}"]), mapping)
_add([str.translate], word, st.dictionaries(st.integers(90, 110), st.none() | word | natural, max_size=3))
_add([str.maketrans], word, word)
_add([bytes.hex, bytes.decode, bytes.isalpha, bytes.title, bytes.split], data)
_add([bytes.fromhex], word | st.just("00 ff"))
_add([bytes.find, bytes.rpartition, bytes.removesuffix], data, data)
_add([int.bit_length, int.bit_count, int.as_integer_ratio], whole)
_add([int.to_bytes], whole, natural, st.sampled_from(["big", "little", "up"]))
_add([int.from_bytes], data, st.sampled_from(["big", "little", "up"]))
_add([float.hex, float.is_integer, float.as_integer_ratio], real)
_add([float.fromhex], st.sampled_from(["0x1p-3", "inf", "x", "-0x0.8p1"]))
_add([list.copy], things)
_add([list.count], things, small)
_add([dict.get], mapping, word, small)
_add([set.union, set.difference, set.issubset], ints.map(set), ints)
_add(
    [math.sqrt, math.exp, math.log, math.sin, math.acos, math.gamma, math.lgamma, math.erf, math.cbrt, math.expm1,
     math.floor, math.ceil, math.trunc, math.frexp, math.modf, math.degrees, math.isfinite, math.ulp, math.tanh,
     math.atanh, math.log2, math.isnan, math.log1p, math.fabs], number)  # fmt: skip
_add([math.factorial, math.isqrt], small)
_add([math.comb, math.perm], small, small)
_add([math.gcd, math.lcm], whole, whole, whole)
_add([math.hypot, math.atan2, math.copysign, math.fmod, math.remainder, math.nextafter], real, real)
_add([math.ldexp], real, small)
_add([math.fsum, math.prod], numbers)
_add([math.dist], numbers, numbers)
_add([math.isclose], real, real, rel_tol=finite)
_add([cmath.sqrt, cmath.exp, cmath.log, cmath.phase, cmath.polar, cmath.isnan, cmath.atan], complex_number)
_add([cmath.rect], real, real)
_add(
    [operator.add, operator.sub, operator.truediv, operator.floordiv, operator.mod, operator.and_,
     operator.eq, operator.lt, operator.concat, operator.contains, operator.getitem], small | word | ints | real,
    small | word | ints)  # fmt: skip
_add([operator.neg, operator.not_, operator.index, operator.truth, operator.length_hint], small | word)
_add([operator.lshift, operator.rshift], whole, natural)
_add([statistics.mean, statistics.median, statistics.mode, statistics.pstdev, statistics.multimode,
      statistics.harmonic_mean, statistics.fmean, statistics.variance, statistics.geometric_mean],
     numbers | st.lists(ratios, max_size=4) | st.lists(decimals_, max_size=4))  # fmt: skip
_add([statistics.quantiles], numbers, n=natural)
_add([statistics.correlation, statistics.covariance], numbers, numbers)
_add([line_of], numbers, numbers)
_add([string.capwords], word)
_add([substituted], st.sampled_from(["$a", "${b}", "$$", "$", "$a $c"]), mapping)
_add([textwrap.dedent, textwrap.fill, textwrap.wrap], word)
_add([textwrap.shorten], word, width=natural)
_add([textwrap.indent], word, word)
_add([re.escape], word)
_add([re.findall, re.split, groups_of], pattern, word)
_add([re.sub, re.subn], pattern, st.sampled_from(["x", r"\1", r"\g<x>", "\\"]), word)
_add([json.dumps], plain_json, indent=st.none() | natural, sort_keys=st.booleans(), allow_nan=st.booleans())
_add([json.loads], plain_json.map(json.dumps) | word | data | st.sampled_from(["{", "[1,]", "NaN"]))
_add([dt.date.isoformat, dt.date.weekday, dt.date.toordinal, dt.date.ctime], dates)
_add(
    [dt.date.fromisoformat, dt.datetime.fromisoformat, dt.time.fromisoformat],
    dates.map(str) | moments.map(str) | st.times().map(str) | word,
)
_add([dt.datetime.strptime], dates.map(str), st.sampled_from(["%Y-%m-%d", "%d", "%Q", "%Y"]))
_add([dt.date.strftime], dates.filter(lambda date: date.year > 999), st.sampled_from(["%d.%m.%Y", "%A %j", "%U"]))
_add([dt.datetime.fromtimestamp], finite, st.just(dt.UTC))
_add(
    [dt.datetime.timestamp, dt.datetime.isoformat, dt.datetime.date, dt.datetime.timetz, dt.datetime.utcoffset], moments
)
_add([dt.date.fromordinal], whole)
_add([dt.timedelta, dt.date, dt.time, dt.datetime], small, small, small)
_add([dt.timedelta.total_seconds], spans)
_add([operator.add, operator.sub, operator.mul], spans | dates | moments, spans | small)
_add([decimal.Decimal], word | finite | st.tuples(st.integers(0, 1), st.tuples(natural), small))
_add([decimal.Decimal.sqrt, decimal.Decimal.normalize, decimal.Decimal.to_integral_value, decimal.Decimal.adjusted,
      decimal.Decimal.as_integer_ratio], decimals_)  # fmt: skip
_add([decimal.Decimal.quantize, decimal.Decimal.compare, decimal.Decimal.remainder_near], decimals_, decimals_)
_add([decimals], st.sampled_from(["exp", "ln", "log10", "sqrt"]), decimals_)
_add([fractions.Fraction], whole | ratios | word, whole | ratios)
_add([fractions.Fraction.limit_denominator], ratios, natural)
_add([collections.Counter, collections.deque, collections.OrderedDict], words | mapping)
_add([chain_maps], mapping, mapping)
_add([counted], ints, ints)
_add([bisect.bisect_left, bisect.bisect_right], ints.map(sorted), small)
_add([heapq.nlargest, heapq.nsmallest], small, ints)
_add([heaped], things | ints)
_add([pushed], ints, small)
_add([calendar.isleap], small)
_add([calendar.leapdays], small, small)
_add([month, calendar.monthcalendar, calendar.month], st.integers(1, 2100), st.integers(-1, 14))
_add([calendar.timegm], st.tuples(st.integers(1970, 2100), natural, natural, small, small, small))
_add([base64.b64encode, base64.b32encode, base64.b16encode, base64.b85encode, base64.urlsafe_b64encode], data)
_add([base64.b64decode, base64.b32decode, base64.b85decode, base64.b16decode], data | data.map(base64.b32encode))
_add([binascii.hexlify, binascii.crc32, binascii.b2a_base64], data)
_add([binascii.unhexlify, binascii.a2b_base64], data | data.map(binascii.hexlify) | word)
_add([quopri.encodestring, quopri.decodestring], data)
_add([digest], hashes, data)
_add([hmac_of], hashes, data, data)
_add([zlib.compress, zlib.adler32, zlib.crc32], data, st.integers(-1, 10))
_add([zlib.decompress], data | data.map(zlib.compress))
_add([struct.calcsize], layouts)
_add([struct.pack], layouts, small | real | data, small)
_add([struct.unpack], layouts, data)
_add([urllib.parse.quote, urllib.parse.unquote, urllib.parse.quote_plus, urllib.parse.unquote_to_bytes], word | data)
_add([urllib.parse.urljoin], links, links)
_add([urllib.parse.parse_qs, urllib.parse.parse_qsl, url_of], links)
_add([urllib.parse.urlencode], mapping)
_add([html.escape, html.unescape], word | st.sampled_from(["&lt;&#x41;&bogus;", "<a href='x'>"]))
_add(
    [unicodedata.name, unicodedata.category, unicodedata.numeric, unicodedata.east_asian_width],
    st.sampled_from(["5", "½", "\u00e9"]) | word,
)
_add([unicodedata.normalize], st.sampled_from(["NFC", "NFKD", "X"]), word)
_add([uuid.UUID], st.uuids().map(str) | word)
_add([uuid.uuid5, uuid.uuid3], st.uuids(), word)
_add([address], st.ip_addresses().map(str) | word)
_add([network], st.sampled_from(["10.0.0.0/8", "::1/126", "10.0.0.0/33", "1.2.3.4"]) | word)
_add([pathlib.PurePath.with_suffix, pathlib.PurePath.with_name, pathlib.PurePath.joinpath, pathlib.PurePath.match,
      pathlib.PurePath.relative_to, pathlib.PurePath.is_relative_to], pure, paths)  # fmt: skip
_add([pathlib.PurePath.as_posix, pathlib.PurePath.is_absolute, pathlib.PurePath.as_uri], pure)
_add([pathlib.PurePosixPath], paths, paths)
_add([os.path.split, os.path.splitext, os.path.basename, os.path.dirname, posixpath.normpath, posixpath.isabs,
      posixpath.splitdrive], paths)  # fmt: skip
_add([posixpath.join, posixpath.relpath], paths, paths)
_add([posixpath.commonpath, posixpath.commonprefix], st.lists(paths, max_size=3))
_add([opcodes], word, word)
_add([difflib.get_close_matches], word, words, natural, st.floats(-0.5, 1.5))
_add([shlex.split, shlex.quote], word | st.sampled_from(["a 'b c' d", "'x", 'y"z"']))
_add([shlex.join], words)
_add([colorsys.rgb_to_hsv, colorsys.hls_to_rgb], finite, finite, finite)
_add([reprlib.repr], things | mapping)
_add([copy.copy, copy.deepcopy], things | mapping)
_add([reduced], st.sampled_from(["add", "mul", "xor"]), ints)
_add([drawn], small, st.sampled_from(["random", "getrandbits", "gauss", "randbytes"]), natural)
_add([drawn], small, st.sampled_from(["sample", "choices", "choice"]), ints, natural)
_add([drawn], small, st.sampled_from(["uniform", "randint", "betavariate", "randrange"]), small, small)
_add([itertools.chain, zip, itertools.zip_longest, itertools.product], ints, words, streams=True)
_add([itertools.accumulate, enumerate, reversed, iter, itertools.pairwise, itertools.cycle], ints | words, streams=True)
_add([itertools.combinations, itertools.permutations, itertools.repeat], ints, natural, streams=True)
_add([itertools.count], small | real, small, streams=True)
_add([itertools.islice], words, natural, streams=True)
_add([difflib.ndiff, difflib.unified_diff], words, words, streams=True)
_add([heapq.merge], ints.map(sorted), ints.map(sorted), streams=True)
_add([np.sqrt, np.exp, np.sin, np.abs, np.sign, np.isnan, np.floor, np.log1p, np.negative, np.isfinite, np.square],
     any_array | real | small)  # fmt: skip
_add([np.add, np.subtract, np.multiply, np.maximum, np.equal, np.logical_and, np.hypot, np.floor_divide, np.power,
      np.left_shift, np.greater], any_array | small | real, any_array | small)  # fmt: skip
_add([np.divmod, np.outer, np.kron, np.dot, np.matmul, operator.matmul], floats, floats)
_add([np.sum, np.mean, np.max, np.argmin, np.any, np.cumsum, np.prod, np.ptp, np.median, np.count_nonzero, np.std],
     any_array, axis)  # fmt: skip
_add([np.linalg.inv, np.linalg.det, np.linalg.norm, np.linalg.cholesky, np.linalg.matrix_rank, np.trace],
     matrices)  # fmt: skip
_add([np.linalg.solve], matrices, matrices)
_add([np.reshape], any_array, st.sampled_from([-1, 4, (2, -1), (3,), (0,), (-1, -1)]))
_add(
    [np.transpose, np.ravel, np.squeeze, np.flip, np.unique, np.atleast_2d, np.nonzero, np.sort, np.argsort], any_array
)
_add([np.concatenate, np.stack, np.vstack], st.lists(any_array, max_size=3))
_add([np.expand_dims, np.take], any_array, small)
_add([np.arange, np.linspace], small, small, natural)
_add([np.zeros, np.ones, np.eye], natural)
_add([np.where], arrays(np.dtype("?"), shape=(3,)), floats, small)
_add([np.clip], any_array, small, small)
_add([np.histogram], floats, st.integers(-1, 5))
_add([np.polyfit], numbers, numbers, st.integers(-1, 2))
_add([np.strings.upper], arrays(np.dtype("U3"), shape=(2,)) | floats)
_add([np.datetime64, np.timedelta64], small, st.sampled_from(["D", "s", "X"]))
_add([np.float32, np.int8, np.complex64, np.float64, np.bool_, np.uint16], number)
_add([np.isscalar], junk)
_add([np.searchsorted, np.digitize], numbers.map(sorted), numbers)
_add([generated], small, st.sampled_from(["random", "integers", "standard_normal", "permutation"]), natural)

CASES = {f"{number:03} {case.name}": case for number, case in enumerate(_cases)}
