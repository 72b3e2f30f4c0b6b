<?php
if ($_SERVER['REQUEST_URI'] !== '/') {
    usleep(200000);
}
$body = 'g' . getenv('ENTRYPOINT_GENERATION') . " served\n";
header('Content-Length: ' . strlen($body));
echo $body;
