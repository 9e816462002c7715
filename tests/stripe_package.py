"""Signs and verifies webhooks with Stripe's own package, for tests/tests/stripe_package.rs.

Reads one JSON object, {"secret", "cases": [{"at", "body", "header"}]}, from stdin. For each case prints
a line of JSON: the header that the package makes, and whether it accepts ours, in time and without
looking at the clock.
"""

import json
import sys

import stripe
from stripe._webhook import WebhookSignature


def accepts(body, header, secret, tolerance):
    try:
        return WebhookSignature.verify_header(body, header, secret, tolerance)
    except stripe.SignatureVerificationError:
        return False


def main():
    task = json.load(sys.stdin)
    secret = task["secret"]
    for case in task["cases"]:
        body, header = case["body"], case["header"]
        made = WebhookSignature.generate_signature_header(body, secret, timestamp=case["at"])
        print(
            json.dumps(
                {
                    "header": made,
                    "accepts": accepts(body, header, secret, None),
                    "in_time": accepts(body, header, secret, 300),
                }
            )
        )


main()
