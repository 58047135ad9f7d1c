"""Who belongs to the mesh: founding, inviting, redeeming, removing, and judging what others show."""

from meshnode.admission.admission import Admission, Removal, RevokedInvite
from meshnode.admission.advice import ADVICE, explain
from meshnode.admission.errors import AdmissionError, AlreadyMember, NotAMember, UnusableInvite
from meshnode.admission.founding import Founded, found_mesh, read_root_key
from meshnode.admission.gate import JoiningGate, MemberGate
from meshnode.admission.invite_book import BookFull, Invite
from meshnode.admission.inviting import InviteRequest, MadeInvite
from meshnode.admission.joining import invite_to_join, take_membership
from meshnode.admission.redeeming import Admitted, Refused
from meshnode.admission.removing import RemovalPlan
from meshnode.admission.roll import MemberRoll
from meshnode.admission.trust import MemberTrust

__all__ = [
    "ADVICE",
    "Admission",
    "AdmissionError",
    "Admitted",
    "AlreadyMember",
    "BookFull",
    "Founded",
    "Invite",
    "InviteRequest",
    "JoiningGate",
    "MadeInvite",
    "MemberGate",
    "MemberRoll",
    "MemberTrust",
    "NotAMember",
    "Refused",
    "Removal",
    "RemovalPlan",
    "RevokedInvite",
    "UnusableInvite",
    "explain",
    "found_mesh",
    "invite_to_join",
    "read_root_key",
    "take_membership",
]
