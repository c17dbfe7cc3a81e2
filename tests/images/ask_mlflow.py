"""Asks MLflow's server beside it, as a stranger and as a user; runs inside the image."""

import base64
import sys
import time
import urllib.error
import urllib.request

ADDRESS = f"http://127.0.0.1:{sys.argv[1]}"
ASKED = f"{ADDRESS}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"


def status(address: str, user: str = "") -> int:
    """The status of an answer; 0: nobody listens yet."""
    request = urllib.request.Request(address)
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


end = time.monotonic() + 90
while status(f"{ADDRESS}/health") != 200 and time.monotonic() < end:
    time.sleep(0.5)
sys.stdout.write(f"stranger {status(ASKED)}, ada {status(ASKED, 'ada:a-long-password')}\n")
