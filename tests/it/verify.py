"""Verifies an evidence file by docs/format.md alone. Prints one line an instance; exits 1 if anything does not hold."""

import hashlib
import sqlite3
import struct
import sys
from urllib.parse import quote


def H(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def one(number):
    return bytes([number])


def i64(number):
    return struct.pack(">q", number)


def u16(number):
    return struct.pack(">H", number)


def opt(value):
    return b"\0" if value is None else b"\1" + value


class Input:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        assert self.at + length <= len(self.data)
        self.at += length
        return self.data[self.at - length : self.at]

    def varint(self):
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number

    def rest(self):
        return self.take(len(self.data) - self.at)

    def more(self):
        return self.at < len(self.data)


class Instance:
    def __init__(self, db, row):
        self.db = db
        self.n, self.instance, started_at, service, environment, build, version, key_id = row
        texts = [service, build, version, key_id] + ([] if environment is None else [environment])
        prefixed = [i64(len(text.encode())) + text.encode() for text in texts]
        self.chain = H(one(4), i64(self.instance), i64(started_at), *prefixed)
        self.texts = dict(db.execute("SELECT id, text FROM texts WHERE n = ?", [self.n]))
        self.types = dict(db.execute("SELECT DISTINCT event_type, name FROM event_counts"))

    def T(self, number):
        return H(self.texts[number].encode())

    def json(self, column):
        column = Input(column)
        number = column.varint()
        return one(1) + column.rest() if number == 0 else one(2) + self.T(number) + column.rest()

    def leaf(self, row):
        (seq, at, after, event_type, actor, target, recipient, outcome_of,
         owner, user_id, request_id, payload, extras, tags, proof) = row
        if len(proof) == 64:
            # A stub. Which ones a record covers is not looked at here.
            assert tags == b"\x40" and not payload and not extras and target is owner is user_id is request_id is None
            assert self.header(row, proof[32:]) == proof[:32]
            return proof[:32]
        if len(proof) == 48:
            kept, gone, claimed = None, {}, proof[16:]
        else:
            long = Input(proof)
            claimed = long.take(32)
            kept = {struct.unpack(">H", long.take(2))[0]: long.take(16) for _ in range(long.varint())}
            gone = {struct.unpack(">H", long.take(2))[0]: long.take(32) for _ in range(long.varint())}

        def salt(item):
            if kept is not None:
                return kept[item]
            both = H(one(0), proof[:16], u16(item // 2))
            return both[:16] if item % 2 == 0 else both[16:]

        items = {
            0: owner,
            1: user_id,
            2: None if target is None else self.T(target),
            3: self.json(payload) if payload else None,
            4: request_id,
            5: self.json(extras) if extras else None,
        }
        commitments = dict(gone)
        for item, content in items.items():
            if content is not None:
                assert item not in gone
                commitments[item] = H(one(1), salt(item), content)
        packed, item = Input(tags), 6
        while packed.more():
            flags = packed.take(1)[0]
            if flags == 1:
                commitments[item] = packed.take(32)
            else:
                assert not flags & 8 or owner is not None
                kind, start = packed.varint(), packed.at
                packed.take(32 if flags & 2 else 0)
                packed.take(packed.varint() if flags & 4 else 0)
                if not flags & 16:
                    packed.varint()
                middle = tags[start : packed.at]
                detail = self.json(packed.take(packed.varint())) if flags & 32 else b""
                commitments[item] = H(one(1), salt(item), one(flags), self.T(kind), middle, detail)
            item += 1
        body = H(one(2), *(u16(item) + commitments[item] for item in sorted(commitments)))
        leaf = self.header(row, body)
        assert leaf == claimed
        return leaf

    def header(self, row, body):
        seq, at, after, event_type, actor, _, recipient, outcome_of = row[:8]
        name = one(event_type) if 1 <= event_type <= 8 else one(0) + H(self.types[event_type].encode())
        return H(
            one(3), i64(self.instance), i64(seq), i64(at), i64(1000 * at + after), name,
            self.T(actor), opt(None if recipient is None else self.T(recipient)),
            opt(None if outcome_of is None else i64(outcome_of)), body,
        )

    def verify(self):
        seq = 1
        batches = self.db.execute(
            "SELECT batch_no, first_seq, events, root, chain FROM batches WHERE n = ? ORDER BY batch_no", [self.n]
        ).fetchall()
        for expected, (batch_no, first_seq, events, root, chain) in enumerate(batches, 1):
            assert (batch_no, first_seq) == (expected, seq)
            rows = self.db.execute(
                "SELECT seq, at, after, event_type, actor, target, recipient, outcome_of, owner, user_id, request_id, "
                "payload, extras, tags, proof FROM events WHERE n = ? AND seq >= ? AND seq < ? ORDER BY seq",
                [self.n, first_seq, first_seq + events],
            ).fetchall()
            assert [row[0] for row in rows] == list(range(first_seq, first_seq + events))
            computed = H(one(6), *map(self.leaf, rows))
            assert computed == root
            self.chain = H(one(5), self.chain, i64(batch_no), i64(first_seq), i64(events), root)
            assert self.chain == chain
            seq += events
        covered = self.db.execute("SELECT count(*) FROM events WHERE n = ?", [self.n]).fetchone()[0]
        assert covered == seq - 1
        return len(batches), seq - 1


def main(path):
    db = sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)
    broken = False
    rows = db.execute(
        "SELECT n, instance, started_at, service, environment, build, version, key_id FROM instances ORDER BY n"
    ).fetchall()
    for row in rows:
        instance = Instance(db, row)
        name = f"{instance.instance & (1 << 64) - 1:016x}"
        try:
            batches, events = instance.verify()
            print(f"{name}: {events} events in {batches} batches hold, head {instance.chain.hex()}")
        except (AssertionError, KeyError, IndexError):
            print(f"{name}: BROKEN")
            broken = True
    sys.exit(1 if broken else 0)


main(sys.argv[1])
