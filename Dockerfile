# Builds the demo's specialist on processors:   docker build -t minigpt . && docker run --rm -v minigpt:/data minigpt
# Any other command, too:                       docker run --rm -v minigpt:/data minigpt methods
# A chat page for this machine alone:           docker run --rm -v minigpt:/data -p 127.0.0.1:8000:8000 \
#                                                   -e MINIGPT_API_KEY=... minigpt serve medical --host 0.0.0.0
FROM python:3.11-slim

RUN useradd --create-home minigpt && mkdir /data && chown minigpt /data
WORKDIR /opt/minigpt
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY minigpt ./minigpt
COPY corpora ./corpora
COPY domains ./domains
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    -c constraints.txt ".[onnx,serve]"

USER minigpt
WORKDIR /data
ENV MINIGPT_HOME=/data/home
VOLUME /data
ENTRYPOINT ["minigpt"]
CMD ["build", "--domain", "medical", "--preset", "quick", "--output-dir", "runs/medical"]
