# SPDX-License-Identifier: Apache-2.0
#
# translate.py on a CPU; docs/deploying.md says how to use it.
FROM python:3.10-slim
# oneDNN's threads
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /instagan/
RUN pip install --no-cache-dir -r /instagan/requirements.txt
COPY . /instagan/
WORKDIR /work
ENTRYPOINT ["python", "/instagan/translate.py"]
