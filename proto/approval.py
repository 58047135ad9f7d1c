"""Letting a node in without a token: six words that two screens show, and why nobody in between can choose them.

What lives here: the commitment, the words, and the texts that carry them. What does not: who asks and who decides
(`meshnode.admission.approving`, `meshnode.joining.approval`). Nothing here reads a clock or draws randomness.

The joiner J and the member M meet over a link on which each has proved its key to the other; but nothing tells J that
this key is that of the member its operator means, nor M that J is the machine beside it. The two operators do, by
comparing words made from both keys, the mesh, and a nonce of each side (a *short authentication string*; S. Vaudenay,
"Secure Communications over Insecure Channels Based on Short Authenticated Strings", CRYPTO 2005):

    1. J -> M   commit   c = SHA-256(context | mesh | M | J | nonce of J)
    2. M -> J   the nonce of M, 32 fresh random bytes
    3. J -> M   reveal   the nonce of J; M checks it against c
       both     words    SHA-256(context | mesh | M | J | nonce of J | nonce of M), 6 bytes of it, a word for each

Who sits between them speaks with each under a key of its own, so that the two sides' hashes have different input. To
make the words agree it would have to choose a nonce after seeing the one it must fit to. It can't: towards M it is
bound by its commitment before M's nonce is known, and J's nonce is hidden in J's commitment until its own is given.
What is left is luck, one chance in 2^48 for each time that an operator compares words.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from proto.ids import MeshId, NodeId, public_key_of

NONCE_BYTES: Final = 32
WORDS: Final = 6
_COMMIT: Final = b"meshnode/v1/approval.commit"
_WORDS: Final = b"meshnode/v1/approval.words"
_TEXT: Final = re.compile(r"approve1\.(commit|reveal)\.([0-9a-f]{64})")


def commitment(mesh: MeshId, member: NodeId, joiner: NodeId, joiner_nonce: bytes) -> bytes:
    """What binds the joiner to its nonce, 32 bytes."""
    return hashlib.sha256(_COMMIT + _who(mesh, member, joiner) + joiner_nonce).digest()


def words(mesh: MeshId, member: NodeId, joiner: NodeId, joiner_nonce: bytes, member_nonce: bytes) -> tuple[str, ...]:
    """The six words. Both nonces are `NONCE_BYTES` long, so that no two inputs look the same."""
    digest = hashlib.sha256(_WORDS + _who(mesh, member, joiner) + joiner_nonce + member_nonce).digest()
    return tuple(WORD_LIST[byte] for byte in digest[:WORDS])


def commit_text(commit: bytes) -> str:
    """Step 1, in the place of an invite token."""
    return f"approve1.commit.{commit.hex()}"


def reveal_text(nonce: bytes) -> str:
    """Step 3, and every question afterwards whether the operator has decided."""
    return f"approve1.reveal.{nonce.hex()}"


def read_text(text: str) -> tuple[str, bytes] | None:
    """`commit` or `reveal` with its 32 bytes; None where `text` is neither (but an invite token, or nothing)."""
    match = _TEXT.fullmatch(text)
    return None if match is None else (match[1], bytes.fromhex(match[2]))


def _who(mesh: MeshId, member: NodeId, joiner: NodeId) -> bytes:
    # An id is a public key: 32 bytes each.
    return b"".join(public_key_of(NodeId(one)) for one in (mesh, member, joiner))


_WORD_TEXT: Final = """
    acorn album amber angle ankle apple april apron arena arrow atlas attic
    bacon badge bagel bamboo banana banjo barrel basket beach beaver bell berry
    bishop blanket bonus bottle bread bridge broom bucket buffalo bunny butter button
    cabin cactus camel canal candle canvas canyon captain carpet carrot castle cat
    cello chalk cheese cherry chess chimney cinema circus clover coconut coffee comet
    copper coral cotton cousin cowboy crater cricket crown cube curtain cushion
    daisy dancer desert diamond dinner doctor dolphin donkey dragon drum duck dust
    eagle earth echo elbow elephant engine envelope evening
    fabric falcon family farmer feather ferry fiddle finger flag flute forest fossil fox
    garden garlic ghost giant ginger giraffe glove goat gold gorilla guitar
    hammer harbor harvest hawk hazel helmet hermit hill hockey honey hotel
    iceberg igloo indigo insect iron island ivory
    jacket jaguar jelly jigsaw jungle juniper
    kangaroo kettle kitchen kiwi knight koala
    ladder lagoon lantern lemon leopard letter lilac lion lizard lobster lotus
    magnet mango maple marble market meadow melon mirror monkey moon mountain museum
    napkin needle nickel noodle north nutmeg
    oasis ocean olive onion opera orange orbit orchid otter oyster
    paddle palace panda paper parrot peach pebble pelican pencil pepper piano picnic pilot
    planet plum pocket poem potato puddle pumpkin puzzle
    quartz queen quilt
    rabbit radio raven ribbon river robin rocket rooster ruby
    saddle sailor salad salmon sandal satin scarf school scooter shadow silver
    sparrow spider spoon statue summer sunset
    tango tiger timber tomato trumpet tulip tunnel turtle
    umbrella uncle
    valley velvet violin
    wagon walnut willow window wizard
    yellow yogurt
    zebra zipper
"""
WORD_LIST: Final = tuple(_WORD_TEXT.split())
"""256 words that are told apart when read aloud; a byte each. Changing it breaks nodes of other versions."""
