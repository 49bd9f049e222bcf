# The broker as a non-root user on a read-only root; it writes to its data and key volumes only.

FROM python:3.13-slim AS wheel
WORKDIR /source
COPY requirements-dev.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements-dev.lock
COPY pyproject.toml README.md LICENSE ./
COPY adapters adapters
COPY broker broker
COPY consumers consumers
COPY fhir_profiles fhir_profiles
COPY sandbox sandbox
RUN python -m hatchling build -t wheel -d /wheel

FROM python:3.13-slim AS installed
COPY requirements.lock ./
RUN python -m venv /opt/referral-broker \
    && /opt/referral-broker/bin/pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY --from=wheel /wheel /wheel
RUN /opt/referral-broker/bin/pip install --no-cache-dir --no-deps --no-index /wheel/*.whl

FROM python:3.13-slim
COPY --from=installed /opt/referral-broker /opt/referral-broker

# Fixed ids, so that volumes keep their owner from one image to the next.
RUN groupadd --gid 10001 broker \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin broker \
    && install --directory --owner 10001 --group 10001 --mode 0700 \
        /var/lib/referral-broker /etc/referral-broker/keys

# It listens on every address, so whoever runs it says with BROKER_PUBLIC_URL what partners call.
ENV PATH=/opt/referral-broker/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BROKER_HOST=0.0.0.0 \
    BROKER_PORT=8080 \
    BROKER_DATA_DIR=/var/lib/referral-broker \
    BROKER_KEYS_DIR=/etc/referral-broker/keys

# Two volumes: whoever copies or steals the data must not get its keys with it.
VOLUME ["/var/lib/referral-broker", "/etc/referral-broker/keys"]
WORKDIR /var/lib/referral-broker
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['BROKER_PORT'] + '/health/ready', timeout=4)"]
ENTRYPOINT ["referral-broker"]
CMD ["serve"]
USER 10001:10001
