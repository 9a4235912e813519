"""Writes people.jsonl and documents.jsonl: what the accuracy test sends, and what it must find.

    pip install -r requirements.txt && python generate.py

The same versions write the same files. What is expected is known by construction (this program put
it there); no rule of the detector is used. People of `people.jsonl` are registered; the others, who
fill the documents, never are.
"""

import base64
import gzip
import hashlib
import html
import json
import quopri
import random
import unicodedata
import urllib.parse
import zlib
from datetime import date, timedelta
from pathlib import Path

import brotli
import zstandard
from faker import Faker

SEED = 20240229
REGISTERED = 160
STRANGERS = 160
DOCUMENTS = 24  # of each form

# Locale: country code, digits of the national number, ISO country.
LOCALES = {
    "en_US": ("1", 10, "US"), "en_GB": ("44", 10, "GB"), "de_DE": ("49", 11, "DE"), "fr_FR": ("33", 9, "FR"),
    "es_ES": ("34", 9, "ES"), "it_IT": ("39", 10, "IT"), "pt_BR": ("55", 11, "BR"), "pl_PL": ("48", 9, "PL"),
    "sv_SE": ("46", 9, "SE"), "cs_CZ": ("420", 9, "CZ"), "tr_TR": ("90", 10, "TR"), "el_GR": ("30", 10, "GR"),
    "ru_RU": ("7", 10, "RU"), "uk_UA": ("380", 9, "UA"), "ar_EG": ("20", 10, "EG"), "hi_IN": ("91", 10, "IN"),
    "ja_JP": ("81", 10, "JP"), "zh_CN": ("86", 11, "CN"), "ko_KR": ("82", 10, "KR"), "vi_VN": ("84", 9, "VN"),
}

rng = random.Random(SEED)
fakers = {locale: Faker(locale) for locale in LOCALES}
for number, (_, faker) in enumerate(sorted(fakers.items())):
    faker.seed_instance(SEED + number)
english = fakers["en_US"]


def key(value):
    """Values that people might take for each other: strangers must not have them."""
    folded = unicodedata.normalize("NFKC", str(value)).casefold()
    digits = "".join(c for c in folded if c.isdigit())
    return digits[-8:] if sum(c.isdigit() for c in folded) > len(folded) / 2 else "".join(sorted(folded.split()))


seen = set()


def unique(make):
    while True:
        value = make()
        if key(value) not in seen and len(str(value)) >= 4:
            seen.add(key(value))
            return value


def digits(count):
    return "".join(rng.choice("0123456789") for _ in range(count))


def born():
    while True:
        day = date(1940, 1, 1) + timedelta(days=rng.randrange(23_000))
        swapped = f"{day.year:04}{day.day:02}{day.month:02}"
        if day.strftime("%Y%m%d") not in seen and swapped not in seen:
            seen.update([day.strftime("%Y%m%d"), swapped])
            return day.isoformat()


def iban(country):
    body = digits(18)
    numeric = "".join(str(int(c, 36)) for c in body + country + "00")
    return f"{country}{98 - int(numeric) % 97:02}{body}"


def person(number, prefix):
    locale = sorted(LOCALES)[number % len(LOCALES)]
    code, length, country = LOCALES[locale]
    fake = fakers[locale]

    def two_parts():
        parts = (fake.first_name(), fake.last_name())
        return " ".join(parts) if all(len(p.split()) == 1 for p in parts) else ""

    def mail():
        return f"{english.user_name()}.{digits(3)}@{english.free_email_domain()}"

    return {
        "id": f"{prefix}{number:04}",
        "name": unique(two_parts),
        "email": unique(mail),
        "phone": unique(lambda: f"+{code}{rng.choice('123456789')}{digits(length - 1)}"),
        "birthday": born(),
        "income": unique(lambda: round(rng.uniform(12_000, 290_000), 2)),
        "iban": unique(lambda: iban(country)),
        "address": unique(lambda: " ".join(fake.address().split())),
        "note": unique(lambda: english.sentence(nb_words=16) + " " + english.sentence(nb_words=12)),
        "customer": unique(lambda: f"CUST-{digits(6)}-{rng.choice('ABCDEFGH')}{rng.choice('KLMNPQR')}"),
        "code": code,
    }


people = [person(number, "p") for number in range(REGISTERED)]
strangers = [person(number, "s") for number in range(STRANGERS)]
FIELDS = ["name", "email", "phone", "birthday", "income", "iban", "address", "note", "customer"]
WORDS = ["name", "email", "iban", "customer"]


def text(value):
    return f"{value:.2f}" if isinstance(value, float) else value


# Containers: a list of (label, rendered value) to (content type, text).


def as_json(values):
    body = {"order": rng.randrange(10**6), "items": [{label: value} for label, value in values], "ok": True}
    return "application/json", json.dumps(body, ensure_ascii=False)


def as_form(values):
    pairs = [("page", "2")] + [(label, text(value)) for label, value in values]
    return "application/x-www-form-urlencoded", urllib.parse.urlencode(pairs)


def as_prose(values):
    lines = [
        f"{english.sentence()[:-1]}: {text(value)}. {english.sentence()}" if number % 2 else
        f"{english.sentence()} We wrote ({text(value)}), as agreed."
        for number, (_, value) in enumerate(values)
    ]
    return "text/plain", "\n".join(lines)


def as_csv(values):
    quoted = ['"' + text(value).replace('"', '""') + '"' if set(text(value)) & set(',";\n') else text(value)
              for _, value in values]
    return "text/csv", "a,b,c\n" + "".join(f"{rng.randrange(100)},{cell},x\n" for cell in quoted)


def as_html(values):
    cells = "".join(f'<tr><td class="c">{label}</td><td>{html.escape(text(value))}</td></tr>' for label, value in values)
    return "text/html", f"<!doctype html><html><body><table>{cells}</table></body></html>"


def as_xml(values):
    return "application/xml", "<r>" + "".join(f"<v>{html.escape(text(value))}</v>" for _, value in values) + "</r>"


def as_log(values):
    lines = [f'2024-05-01T10:00:{n:02}Z INFO done user="{text(value)}" took=12ms' for n, (_, value) in enumerate(values)]
    return "text/plain", "\n".join(lines)


ALL = [as_json, as_form, as_prose, as_csv, as_html, as_xml, as_log]
LEAVES = [as_json, as_form]


def shuffled(variants):
    return lambda field, value, who: rng.choice(variants(field, value, who))


def escaped(_, value, __):
    return "".join(c if c.isascii() and c.isalnum() else "".join(f"\\u{u:04x}" for u in units(c)) for c in text(value))


def units(c):
    raw = c.encode("utf-16-be")
    return [int.from_bytes(raw[at:at + 2], "big") for at in range(0, len(raw), 2)]


def entities(_, value, __):
    return "".join(c if c.isascii() and c.isalnum() else rng.choice([f"&#{ord(c)};", f"&#x{ord(c):x};"])
                   for c in text(value))


def b64(raw):
    return base64.b64encode(raw).decode()


def sentence(value):
    return f"{english.sentence()} {text(value)} {english.sentence()}".encode()


def nested(_, value, __):
    inner = b64(sentence(value))
    outer = urllib.parse.quote(json.dumps({"d": inner}), safe="")
    return rng.choice([b64(inner.encode()), outer, outer.encode().hex()])


def normalised(field, value):
    return value.strip().lower() if field != "phone" else rng.choice([value, value[1:]])


def digest(make, encode):
    return lambda field, value, who: encode(make(normalised(field, value).encode()).digest())


def phones(_, value, who):
    code, rest = who["code"], value[1 + len(who["code"]):]
    groups = [rest[:3], rest[3:6], rest[6:]]
    return [
        f"+{code} {' '.join(groups)}", f"+{code} ({groups[0]}) {groups[1]}-{groups[2]}", f"+{code}.{'.'.join(groups)}",
        f"00{code} {'-'.join(groups)}", f"+{code}-{groups[0]}-{groups[1]}{groups[2]}",
    ]


def national(_, value, who):
    rest = value[1 + len(who["code"]):]
    groups = [rest[:3], rest[3:6], rest[6:]]
    trunk = "" if who["code"] in ("1", "34", "48", "420", "30", "39") else "0"
    return [trunk + rest, f"{trunk}{' '.join(groups)}", f"({trunk}{groups[0]}) {groups[1]}-{groups[2]}"]


def numbers(_, value, __):
    whole, cents = f"{value:.2f}".split(".")
    grouped = f"{int(whole):,}"
    return [
        f"{grouped}.{cents}", f"${whole}.{cents}", f"EUR {grouped}.{cents}", f"{grouped.replace(',', '.')},{cents} €",
        f"{grouped.replace(',', chr(0xA0))},{cents}", f"{value:.2f}0", f"+{whole}.{cents}",
    ]


def dates(_, value, __):
    day = date.fromisoformat(value)
    return [
        day.strftime("%d/%m/%Y"), day.strftime("%m/%d/%Y"), day.strftime("%d.%m.%Y"), day.strftime("%Y/%m/%d"),
        day.strftime("%Y%m%d"), day.strftime("%d %b %Y"), day.strftime("%B %d, %Y"), f"{value}T00:00:00Z",
        f"{day.day}.{day.month}.{day.year}",
    ]


def name_order(_, value, __):
    first, last = value.split()
    return [f"{last}, {first}", f"{last} {first}", f"{last.upper()}, {first}"]


def name_spacing(_, value, __):
    return [value.replace(" ", "  "), value.replace(" ", "\u00a0"), value.replace(" ", "\n ")]


def name_unicode(_, value, __):
    return [unicodedata.normalize(form, value) for form in ("NFC", "NFD", "NFKC", "NFKD")]


def ids(_, value, __):
    bare = value.replace("-", "")
    step = 4 if value[4] != "-" else 3
    groups = [bare[at:at + step] for at in range(0, len(bare), step)]
    return [" ".join(groups), "-".join(groups), bare.lower()]


def upper(_, value, __):
    return f"  {value.upper()} "


def same_when_upper(field, value):
    return not isinstance(value, float) and value.upper().casefold() == value.casefold()


def exact(_, value, __):
    return value


def encoded(encode):
    return lambda field, value, who: encode(text(value))


# form: (fields, containers, how a value is written)
FORMS = {
    "exact leaf": (FIELDS, LEAVES, exact),
    "case and surrounding space": (WORDS + ["address"], LEAVES, upper),
    "in prose": (FIELDS, [as_prose], exact),
    "in CSV": (FIELDS, [as_csv], exact),
    "in HTML": (FIELDS, [as_html], exact),
    "in XML": (FIELDS, [as_xml], exact),
    "in logs": (FIELDS, [as_log], exact),
    "JSON escapes": (FIELDS, ["escapes"], escaped),
    "percent": (FIELDS, [as_prose, as_json], encoded(lambda v: urllib.parse.quote(v, safe=""))),
    "plus": (FIELDS, ["raw form"], encoded(urllib.parse.quote_plus)),
    "quoted-printable": (FIELDS, ["quoted-printable"], exact),
    "HTML entities": (FIELDS, ["entities"], entities),
    "base64": (FIELDS, [as_json, as_prose], encoded(lambda v: b64(sentence(v)))),
    "base64url": (FIELDS, [as_json, as_form], encoded(lambda v: base64.urlsafe_b64encode(sentence(v)).decode().rstrip("="))),
    "hex": (FIELDS, [as_json, as_log], encoded(lambda v: sentence(v).hex())),
    "nested encodings": (FIELDS, [as_json], nested),
    "gzip body": (FIELDS, ["gzip"], exact),
    "deflate body": (FIELDS, ["deflate"], exact),
    "zstd body": (FIELDS, ["zstd"], exact),
    "br body": (FIELDS, ["br"], exact),
    "multipart": (FIELDS, ["multipart"], exact),
    "md5 hex": (["email", "name", "phone"], [as_json, as_csv], digest(hashlib.md5, bytes.hex)),
    "sha1 hex": (["email", "name", "phone"], [as_json, as_csv], digest(hashlib.sha1, bytes.hex)),
    "sha256 hex": (["email", "name", "phone"], [as_json, as_csv], digest(hashlib.sha256, bytes.hex)),
    "sha256 base64": (["email", "name", "phone"], [as_json], digest(hashlib.sha256, b64)),
    "phone separators": (["phone"], [as_json, as_prose, as_csv], shuffled(phones)),
    "phone without country code": (["phone"], [as_json, as_prose], shuffled(national)),
    "id separators": (["iban", "customer"], [as_json, as_prose], shuffled(ids)),
    "number formats": (["income"], [as_json, as_prose, as_html], shuffled(numbers)),
    "date formats": (["birthday"], [as_json, as_prose, as_csv], shuffled(dates)),
    "name order": (["name"], [as_json, as_prose], shuffled(name_order)),
    "name spacing": (["name", "address"], [as_json, as_prose], shuffled(name_spacing)),
    "Unicode forms": (["name", "address"], [as_json, as_prose], shuffled(name_unicode)),
    "longer than 64 bytes": (["note"], [as_json, as_prose, as_csv, as_html], exact),
    "nobody registered": ([], ALL, exact),
}


def render(container, values):
    """(content type, content encoding, bytes)"""
    if container == "escapes":
        members = ", ".join(f'"{label}": "{value}"' for label, value in values)
        return "application/json", None, ("{" + members + "}").encode()
    if container == "raw form":
        return "application/x-www-form-urlencoded", None, "&".join(f"{label}={value}" for label, value in values).encode()
    if container == "quoted-printable":
        head = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        return "message/rfc822", None, head + quopri.encodestring(as_prose(values)[1].encode())
    if container == "entities":
        return "text/html", None, "".join(f"<p>{value}</p>" for _, value in values).encode()
    if container == "multipart":
        half = len(values) // 2 + 1
        parts = [as_json(values[:half]), as_prose(values[half:])]
        body = "".join(f'--XbX\r\nContent-Disposition: form-data; name="p{n}"\r\nContent-Type: {kind}\r\n\r\n{part}\r\n'
                       for n, (kind, part) in enumerate(parts))
        return "multipart/form-data; boundary=XbX", None, (body + "--XbX--\r\n").encode()
    if container in ("gzip", "deflate", "zstd", "br"):
        kind, body = as_json(values)
        compress = {
            "gzip": lambda raw: gzip.compress(raw, mtime=0), "deflate": zlib.compress,
            "zstd": zstandard.compress, "br": brotli.compress,
        }[container]
        return kind, container, compress(body.encode())
    kind, body = container(values)
    return kind, None, body.encode()


def document(form):
    fields, containers, write = FORMS[form]
    # Whom it is about; and people who are nobody's business fill it.
    values, expected = [], []
    for who in rng.sample(people, rng.choice([1, 1, 2])) if fields else []:
        usable = [f for f in fields if form != "case and surrounding space" or same_when_upper(f, who[f])]
        for field in rng.sample(usable, min(len(usable), rng.choice([1, 2, 3]))):
            values.append((field, write(field, who[field], who)))
            expected.append([who["id"], field])
    for who in rng.sample(strangers, 2):
        field = rng.choice(fields or FIELDS)
        if form != "case and surrounding space" or same_when_upper(field, who[field]):
            values.append((field, write(field, who[field], who)))
    rng.shuffle(values)
    kind, encoding, body = render(rng.choice(containers), values)
    return {
        "form": form, "content_type": kind, "content_encoding": encoding, "body": b64(body),
        "expected": sorted(expected),
    }


def write(name, rows):
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (Path(__file__).parent / name).write_text("".join(lines), encoding="utf-8")


write("people.jsonl", [{k: v for k, v in who.items() if k != "code"} for who in people])
write("documents.jsonl", [document(form) for form in FORMS for _ in range(DOCUMENTS)])
