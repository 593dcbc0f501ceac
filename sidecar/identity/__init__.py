"""Token → Principal. Nothing else decides who somebody is.

carriers     where a token may stand in an upgrade request and in `connect`; two that differ are refused
jwt          the token as text → header, claims, signature; refused here is what needs no key to refuse
keys         a JWKS document → public keys, each with the algorithms that fit it
jwks         one issuer's keys over time: discovery, rotation, outage
fetch        HTTP, the only I/O of this room
claims       verified claims → Principal, or why not
verifier     all issuers and the cache of verified tokens; what the other rooms call
options      which issuers are trusted, and all that can be wrong with saying so
refusals     every reason for a refusal, and its sentence
strict_json  JSON that means one thing
"""
